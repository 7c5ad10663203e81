"""The time of live runs."""

import asyncio
from time import perf_counter


class LiveClock:
    """Time in the units of the workload: `speedup` seconds in each real one."""

    def __init__(self, speedup: float = 1.0) -> None:
        self.speedup = speedup
        self.start()

    def start(self) -> None:
        """Set the time to 0."""
        self._start = perf_counter()

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return (perf_counter() - self._start) * self.speedup

    async def sleep_until(self, time_s: float) -> None:
        """Wait until a time."""
        await asyncio.sleep((time_s - self.now_s) / self.speedup)
