"""Ctrl-C pressed in a process group of a test."""

import os
import signal
import subprocess
import time

LINE = "interrupted; finished runs are kept, and the same command resumes"
LONGEST_S = 2.0


def interrupt(process: subprocess.Popen[str], times: int) -> tuple[float, str]:
    """Press Ctrl-C: how long the process takes to end, and the rest of its stderr."""
    began_s = time.monotonic()
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.1)
    process.wait(timeout=60)
    took_s = time.monotonic() - began_s
    return took_s, process.communicate(timeout=60)[1]
