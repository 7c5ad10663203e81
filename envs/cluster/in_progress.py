"""The state of an engine within a span: events that have happened although the span is committed only at its end."""

from envs.cluster.engine import Engine
from envs.cluster.span import whole_steps_within


def settle(engine: Engine, now_s: float) -> None:
    """Stamp the prefills that have begun and the first tokens that are out by now."""
    span = engine.span
    for request, _ in engine.scheduler.step.chunks:
        if request.prefill_start_s != request.prefill_start_s:  # nan
            request.prefill_start_s = span.start_s
    if engine.batch.fresh:
        first_end_s = span.start_s + span.first_s
        if first_end_s <= now_s:
            engine.batch.stamp_first_tokens(first_end_s)


def tbt_excess(engine: Engine, now_s: float) -> float:
    """Sum of max(0, gap / SLO - 1) over all gaps of an engine that have ended by now."""
    span = engine.span
    batch = engine.batch
    over = span.steps_over(now_s) if batch.members else 0
    return batch.tbt_excess(over, span.first_s, span.growth_s)


def unstamped_misses(engine: Engine, now_s: float) -> int:
    """Number of members of an engine's decode batch whose miss of an SLO is not in their stamps yet."""
    span = engine.span
    batch = engine.batch
    over = span.steps_over(now_s) if batch.members else 0
    return batch.unstamped_misses(over, span.first_s, span.growth_s)


def busy_s(engine: Engine, now_s: float) -> tuple[float, float]:
    """Time that an engine has spent in steps, and the duration of its current step (0 if it is idle), seconds."""
    span = engine.span
    if span.steps == 0:
        return engine.busy_s, 0.0
    elapsed_s = now_s - span.start_s
    done = whole_steps_within(elapsed_s, span.steps, span.first_s, span.growth_s)
    step_s = span.first_s + done * span.growth_s if done < span.steps else 0.0
    return engine.busy_s + elapsed_s, step_s
