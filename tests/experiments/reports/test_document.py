"""A report as files: numbered figures, sections without content left out, and folders that belong to a command."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments.reports.document import Picture, claim, for_console, made_by, write_report
from hardware_profiles import InputError, load_profile
from tests.toy import toy_profile


def picture(name: str) -> Picture:
    return Picture(name, Figure(figsize=(1, 1)), "a [picture]", "Of *something*.")


def test_a_report_is_a_summary_a_page_and_its_figures(tmp_path: Path) -> None:
    sections = [
        ("", ["Before."]),
        ("## One", ["Text.", picture("a-b c/d")]),
        ("## Empty", []),
        ("## Also empty", ["", ""]),
        ("## Two", [picture("e")]),
    ]
    write_report("A *title*", sections, tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("# A \\*title\\*\n\nBefore.\n\n## One\n\nText.\n\n")
    assert "![a \\[picture\\]](<figures/a-b_c_d.png>)\n*Figure 1. Of *something*.*" in text
    assert "*Figure 2. " in text
    assert "mpty" not in text
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["a-b_c_d.png", "e.png"]
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 2
    assert {path.name for path in tmp_path.iterdir()} == {"summary.md", "report.html", "figures"}


def test_equal_reports_have_equal_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_report("A title", [("## One", ["Text.", picture("p")])], tmp_path / folder)
    for name in ("summary.md", "report.html", "figures/p.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_console_shows_no_marks() -> None:
    assert for_console("**bold** and `code`", "", "end") == "bold and code\n\nend"


def test_a_command_may_come_back_with_other_options(tmp_path: Path) -> None:
    for seeds in (2, 3):
        claim(tmp_path / "out", "compare", {"seeds": seeds})
        assert json.loads((tmp_path / "out" / "command.json").read_text()) == {
            "command": "compare",
            "options": {"seeds": seeds},
        }


def test_the_folder_of_another_command_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, "train", {})
    before = (tmp_path / "command.json").read_bytes()
    with pytest.raises(InputError, match=r"holds the results of experiments\.train; give another --out, or delete it"):
        claim(tmp_path, "compare", {})
    assert (tmp_path / "command.json").read_bytes() == before


@pytest.mark.parametrize("note", ["", "[]", '{"policies": ["static"]}', "not json"])
def test_a_folder_of_another_version_is_refused(note: str, tmp_path: Path) -> None:
    (tmp_path / "command.json").write_text(note)
    with pytest.raises(InputError, match="of another version; give another --out, or delete the folder"):
        claim(tmp_path, "compare", {})


def test_the_foot_says_what_is_needed_to_make_it_again() -> None:
    text = made_by("python -m experiments.compare --policies static", toy_profile(), "0 to 4")
    for part in (
        "`python -m experiments.compare --policies static`",
        "commit",
        "NumPy",
        "profile `toy`",
        "seeds 0 to 4",
    ):
        assert part in text
    assert "connector" not in text
    rdma = load_profile("a100-qwen3-8b").with_connector("rdma")
    assert "; connector " in made_by("x", rdma, "0")
