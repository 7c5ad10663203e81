"""The shell around every command: exit codes, one-line errors, Ctrl-C.

Exit codes: 0 done; 2 invalid input; 130 interrupted.
"""

import argparse
import gc
import os
import signal
import sys
from collections.abc import Callable
from threading import Lock, Timer
from types import FrameType
from typing import NoReturn

from hardware_profiles.compiled import stale_notice
from hardware_profiles.errors import InputError

INTERRUPTED = 130
_INTERRUPTED_LINE = "\ninterrupted; finished runs are kept, and the same command resumes"
_UNSAID = Lock()  # taken by whoever prints the line
_CLEAN_UP_S = 1.0
"""Time that a command has for cleaning up after Ctrl-C, seconds; then the process ends as it is."""
_SEMAPHORES_LEFT = "ignore:resource_tracker:UserWarning"
"""A -W option for the processes that this one starts.

One of them is Python's resource tracker. If this process ends as it is, the tracker removes the semaphores left behind,
as it should, and would warn of them below the line of Ctrl-C.
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error is one line that names the mistake, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print `message` as one line and exit with code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def run_main(main: Callable[[], None]) -> NoReturn:
    """Run a command's main function and exit with its exit code.

    InputError and a missing or unreadable file become one line on standard error and exit code 2. Ctrl-C ends the
    command within two seconds, however often it is pressed: nothing is left half-written, and workers end with this
    process. If the compiled modules are out of date, a line before all others says so.
    """
    gc.freeze()  # imported objects live forever, so the collector need not look at them again
    signal.signal(signal.SIGINT, _interrupt)
    if _SEMAPHORES_LEFT not in sys.warnoptions:
        sys.warnoptions.append(_SEMAPHORES_LEFT)
    if notice := stale_notice():
        print(notice, file=sys.stderr)
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # Only files that the user named are opened by path; an error without a name is a bug and keeps its traceback.
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _say_interrupted()
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _say_interrupted() -> None:
    """Print the line once: after it, the interpreter may still take too long to end."""
    if _UNSAID.acquire(blocking=False):
        print(_INTERRUPTED_LINE, file=sys.stderr, flush=True)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt once; later signals are ignored, so that cleaning up is not interrupted itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watchdog = Timer(_CLEAN_UP_S, _end_at_once)
    watchdog.daemon = True
    watchdog.start()
    raise KeyboardInterrupt


def _end_at_once() -> None:
    """End the process, and its workers with it, when cleaning up takes too long."""
    _say_interrupted()
    os._exit(INTERRUPTED)
