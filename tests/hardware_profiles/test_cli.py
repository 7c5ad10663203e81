"""The shell around every command: exit codes, one-line errors, and Ctrl-C within two seconds."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import InputError
from hardware_profiles.cli import INTERRUPTED, run_main
from hardware_profiles.errors import unknown_name
from tests.ctrl_c import LINE, LONGEST_S, interrupt

ROOT = Path(__file__).parents[2]
needs_signals = pytest.mark.skipif(os.name != "posix", reason="sends signals as a terminal does")

LOCKS = "lock = get_context('spawn').Lock()"  # left behind by a command whose cleaning up takes too long
SLEEPS = "while True: time.sleep(60)"
COMPUTES = "while True: sum(range(1000))"
TIDIES = """
    try:
        time.sleep(60)
    finally:
        end = time.monotonic() + 60
        while time.monotonic() < end: time.sleep(0.1)
"""


def end_of(main: Callable[[], None]) -> int:
    with pytest.raises(SystemExit) as left:
        run_main(main)
    return int(left.value.code or 0)


@pytest.fixture(autouse=True)
def _signals() -> object:
    """`run_main` is made for a separate process."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_command_that_ends_has_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of(lambda: print("done")) == 0
    assert capsys.readouterr().out == "done\n"


def test_invalid_input_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise InputError("--seeds 0: must be at least 1")

    assert end_of(main) == 2
    assert capsys.readouterr().err == "error: --seeds 0: must be at least 1\n"


def test_a_missing_file_is_one_line_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nowhere.csv"
    assert end_of(lambda: print(path.read_text())) == 2
    assert capsys.readouterr().err == f"error: {path}: No such file or directory\n"


@pytest.mark.parametrize("error", [OSError("no file has a part in this"), ZeroDivisionError("a bug")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run_main(main)


@given(st.lists(st.text(min_size=1), unique=True), st.text())
def test_an_unknown_name_lists_what_is_known(known: list[str], name: str) -> None:
    text = str(unknown_name("thing", name, known))
    assert text.startswith(f"unknown thing {name!r}; ")
    assert text.endswith(f"known: {', '.join(known)}")
    assert ("did you mean" in text) >= (name in known)


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


def start(program: str) -> subprocess.Popen[str]:
    """A process group, as a shell makes one for each command; it is ready when it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
@needs_signals
@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("body", [SLEEPS, COMPUTES, TIDIES], ids=["sleeps", "computes", "tidies up for a minute"])
def test_ctrl_c_ends_a_command_with_one_line(body: str, times: int) -> None:
    program = (
        "import time\nfrom multiprocessing import get_context\nfrom hardware_profiles.cli import run_main\n"
        f"def main():\n    {LOCKS}\n    print('ready', flush=True)\n    {body.strip()}\nrun_main(main)"
    )
    process = start(program)
    took_s, stderr = interrupt(process, times)
    assert process.returncode == INTERRUPTED
    assert stderr == f"\n{LINE}\n"
    assert took_s < LONGEST_S
    assert INTERRUPTED == 130
