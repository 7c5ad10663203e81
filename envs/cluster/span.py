"""A span: a run of engine steps whose composition cannot change, played as one event.

Decode KV and a long prompt's context grow linearly, so the steps of a span last first_s, first_s + growth_s,
first_s + 2 * growth_s, ... (growth_s >= 0). All arithmetic on such runs stands here.
"""

from math import sqrt

from mypy_extensions import mypyc_attr


def run_s(steps: int, first_s: float, growth_s: float) -> float:
    """Seconds that `steps` steps take together."""
    return steps * first_s + growth_s * (steps * (steps - 1) // 2)


def steps_within(elapsed_s: float, first_s: float, growth_s: float) -> float:
    """How many steps fit into `elapsed_s` (a real number).

    The positive root of growth/2 * k^2 + (first - growth/2) * k = elapsed, in the form without cancellation.
    """
    if growth_s == 0.0:
        return elapsed_s / first_s
    linear = first_s - 0.5 * growth_s
    return 2.0 * elapsed_s / (linear + sqrt(linear * linear + 2.0 * growth_s * elapsed_s))


def whole_steps_within(elapsed_s: float, steps: int, first_s: float, growth_s: float) -> int:
    """How many whole steps of `steps` are over after `elapsed_s`; one that ends just then is."""
    done = int(steps_within(elapsed_s, first_s, growth_s) + 1e-9)
    return done if done < steps else steps


def steps_up_to(limit_s: float, steps: int, first_s: float, growth_s: float) -> int:
    """How many of `steps` steps last no longer than `limit_s`; steps never grow shorter."""
    if first_s > limit_s:
        return 0
    if growth_s == 0.0:
        return steps
    return min(steps, int((limit_s - first_s) / growth_s) + 1)


@mypyc_attr(allow_interpreted_subclasses=True)
class Span:
    """The steps that an engine is in the middle of.

    Attributes:
        start_s: when the first step began, seconds.
        steps: how many steps; 0: the engine idles.
        first_s: duration of the first step, seconds.
        growth_s: what each step lasts longer than the one before, seconds.
        end_s: when the last step ends, seconds.
    """

    __slots__ = ("end_s", "first_s", "growth_s", "start_s", "steps")

    def __init__(self) -> None:
        self.begin(0.0, 0, 0.0, 0.0)

    def begin(self, start_s: float, steps: int, first_s: float, growth_s: float) -> None:
        """Become the span of these steps."""
        self.start_s = start_s
        self.steps = steps
        self.first_s = first_s
        self.growth_s = growth_s
        self.end_s = start_s + (steps * first_s + growth_s * (steps * (steps - 1) // 2))  # run_s, inlined

    def idle(self, start_s: float) -> None:
        """Become no steps at all."""
        self.start_s = start_s
        self.steps = 0

    def copy(self) -> "Span":
        """An independent copy."""
        twin = Span()
        twin.begin(self.start_s, self.steps, self.first_s, self.growth_s)
        return twin

    def boundary(self, now_s: float) -> tuple[int, float]:
        """The first step boundary that is not before `now_s`: steps that lead to it, and its time in seconds.

        `now_s` lies within the span.
        """
        start_s = self.start_s
        if now_s <= start_s:
            return 0, start_s
        # steps_within and run_s, inlined: called twice per request (-1 us of 20 per request).
        first_s = self.first_s
        growth_s = self.growth_s
        elapsed_s = now_s - start_s
        if growth_s == 0.0:
            passed = elapsed_s / first_s
        else:
            linear = first_s - 0.5 * growth_s
            passed = 2.0 * elapsed_s / (linear + sqrt(linear * linear + 2.0 * growth_s * elapsed_s))
        steps = int(passed)
        # Near a boundary rounding may leave it one off either way; a boundary at now is the one.
        if passed - steps < 1e-6:
            while steps and start_s + (steps * first_s + growth_s * (steps * (steps - 1) // 2)) >= now_s:
                steps -= 1
        while True:
            steps += 1
            time_s = start_s + (steps * first_s + growth_s * (steps * (steps - 1) // 2))
            if time_s >= now_s:
                return steps, time_s

    def boundary_s(self, steps: int) -> float:
        """When the first `steps` steps are over, seconds."""
        return self.start_s + run_s(steps, self.first_s, self.growth_s)

    def steps_over(self, now_s: float) -> int:
        """How many whole steps are over by `now_s`; one that ends just then is."""
        if self.steps == 0 or now_s <= self.start_s:
            return 0
        return whole_steps_within(now_s - self.start_s, self.steps, self.first_s, self.growth_s)
