"""A span: a run of engine steps whose composition cannot change, simulated as one event.

Decode KV and a long prompt's context grow linearly, so the steps of a span last first_s, first_s + growth_s,
first_s + 2 * growth_s, ... (growth_s >= 0). This module has all arithmetic on such runs.
"""

from math import sqrt

from mypy_extensions import mypyc_attr


def run_s(steps: int, first_s: float, growth_s: float) -> float:
    """Total seconds of `steps` steps."""
    return steps * first_s + growth_s * (steps * (steps - 1) // 2)


def steps_within(elapsed_s: float, first_s: float, growth_s: float) -> float:
    """Number of steps, as a real number, that fit into `elapsed_s`.

    It is the positive root of growth/2 * k^2 + (first - growth/2) * k = elapsed, in the form without cancellation.
    """
    if growth_s == 0.0:
        return elapsed_s / first_s
    linear = first_s - 0.5 * growth_s
    return 2.0 * elapsed_s / (linear + sqrt(linear * linear + 2.0 * growth_s * elapsed_s))


def whole_steps_within(elapsed_s: float, steps: int, first_s: float, growth_s: float) -> int:
    """Number of steps, at most `steps`, that have ended after `elapsed_s`, including one that ends then."""
    done = int(steps_within(elapsed_s, first_s, growth_s) + 1e-9)
    return done if done < steps else steps


def steps_up_to(limit_s: float, steps: int, first_s: float, growth_s: float) -> int:
    """Number of steps, at most `steps`, that last no longer than `limit_s`; steps never grow shorter."""
    if first_s > limit_s:
        return 0
    if growth_s == 0.0:
        return steps
    return min(steps, int((limit_s - first_s) / growth_s) + 1)


@mypyc_attr(allow_interpreted_subclasses=True)
class Span:
    """The steps in progress on an engine.

    Attributes:
        start_s: start of the first step, seconds.
        steps: number of steps; 0: the engine is idle.
        first_s: duration of the first step, seconds.
        growth_s: growth of the duration from each step to the next, seconds.
        end_s: end of the last step, seconds.
    """

    __slots__ = ("end_s", "first_s", "growth_s", "start_s", "steps")

    def __init__(self) -> None:
        self.begin(0.0, 0, 0.0, 0.0)

    def begin(self, start_s: float, steps: int, first_s: float, growth_s: float) -> None:
        """Set the span to these steps."""
        self.start_s = start_s
        self.steps = steps
        self.first_s = first_s
        self.growth_s = growth_s
        self.end_s = start_s + (steps * first_s + growth_s * (steps * (steps - 1) // 2))  # run_s, inlined

    def idle(self, start_s: float) -> None:
        """Set the span to no steps."""
        self.start_s = start_s
        self.steps = 0

    def copy(self) -> "Span":
        """An independent copy."""
        twin = Span()
        twin.begin(self.start_s, self.steps, self.first_s, self.growth_s)
        return twin

    def boundary(self, now_s: float) -> tuple[int, float]:
        """The first step boundary at or after `now_s`: the number of steps before it, and its time in seconds.

        `now_s` must be within the span.
        """
        start_s = self.start_s
        if now_s <= start_s:
            return 0, start_s
        # steps_within and run_s are inlined: this is called twice per request, and inlining saves 1 us of 20 per
        # request.
        first_s = self.first_s
        growth_s = self.growth_s
        elapsed_s = now_s - start_s
        if growth_s == 0.0:
            passed = elapsed_s / first_s
        else:
            linear = first_s - 0.5 * growth_s
            passed = 2.0 * elapsed_s / (linear + sqrt(linear * linear + 2.0 * growth_s * elapsed_s))
        steps = int(passed)
        # Near a boundary, rounding may give one step too few or too many; a boundary exactly at now_s counts.
        if passed - steps < 1e-6:
            while steps and start_s + (steps * first_s + growth_s * (steps * (steps - 1) // 2)) >= now_s:
                steps -= 1
        while True:
            steps += 1
            time_s = start_s + (steps * first_s + growth_s * (steps * (steps - 1) // 2))
            if time_s >= now_s:
                return steps, time_s

    def boundary_s(self, steps: int) -> float:
        """End of the first `steps` steps, seconds."""
        return self.start_s + run_s(steps, self.first_s, self.growth_s)

    def steps_over(self, now_s: float) -> int:
        """Number of steps that have ended by `now_s`, including one that ends then."""
        if self.steps == 0 or now_s <= self.start_s:
            return 0
        return whole_steps_within(now_s - self.start_s, self.steps, self.first_s, self.growth_s)
