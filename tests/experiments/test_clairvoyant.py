"""A clairvoyant policy is called so in everything that a comparison writes and says."""

import csv
import gzip
from pathlib import Path

import pytest

from experiments.compare import CompareOptions, run
from experiments.options.parser import parse

TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.05},{100 + i % 7 * 300},5\n" for i in range(60))
NAMES = ["static", "lookahead:horizon=2,base=static", "seer=lookahead:horizon=1,base=static"]
LABELS = ["static", "lookahead:horizon=2,base=static (clairvoyant)", "seer (clairvoyant)"]


@pytest.mark.slow
def test_a_comparison_says_which_policies_are_clairvoyant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, out = tmp_path / "toy.csv", tmp_path / "out"
    trace.write_text(TRACE)
    given = ["--policies", *NAMES, "--trace", str(trace), "--trace-format", "native", "--out", str(out)]
    run(parse(CompareOptions, "compare", "", given))

    for text in ((out / "cells.csv").read_text(), gzip.decompress((out / "requests.csv.gz").read_bytes()).decode()):
        assert list(dict.fromkeys(row["policy"] for row in csv.DictReader(text.splitlines()))) == LABELS
    printed = capsys.readouterr()
    for text in ((out / "summary.md").read_text(), printed.out, printed.err):
        named = [line for line in text.splitlines() if "experiments.compare" not in line]  # but the command itself
        lines = [line for line in named if "lookahead" in line or "seer" in line]
        assert all("clairvoyant" in line for line in lines)
        assert sum("(clairvoyant)" in line for line in lines) >= 2


def test_the_help_says_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(CompareOptions, "compare", "", ["--help"])
    assert "lookahead (clairvoyant)" in " ".join(capsys.readouterr().out.split())
