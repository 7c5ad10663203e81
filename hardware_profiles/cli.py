"""What every command line of the project shares: one-line errors and exit codes.

Exit codes: 0 done; 2 bad arguments or input.
"""

import argparse
import gc
import sys
from collections.abc import Callable
from typing import NoReturn

from hardware_profiles.compiled import stale_notice
from hardware_profiles.errors import InputError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error is one line that names the mistake, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print `message` as one line and exit with code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def run_main(main: Callable[[], None]) -> NoReturn:
    """Run a command's main function and leave with its exit code.

    InputError and a missing or unreadable file become one line on standard error and exit code 2. If the compiled
    modules are out of date, a line before all others says so.
    """
    gc.freeze()  # what is imported is no garbage, and need not be looked at each time
    if notice := stale_notice():
        print(notice, file=sys.stderr)
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # Only files the user named are opened by path; anything without a name is a bug and keeps its traceback.
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
