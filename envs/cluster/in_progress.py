"""An engine in the middle of a span: what has happened by now although the span counts only when it ends."""

from envs.cluster.engine import Engine
from envs.cluster.span import whole_steps_within


def settle(engine: Engine, now_s: float) -> None:
    """Stamp the first chunks that have begun and the first tokens that are out by now."""
    span = engine.span
    for request, _ in engine.scheduler.step.chunks:
        if request.prefill_start_s != request.prefill_start_s:  # nan
            request.prefill_start_s = span.start_s
    if engine.batch.fresh:
        first_end_s = span.start_s + span.first_s
        if first_end_s <= now_s:
            engine.batch.stamp_first_tokens(first_end_s)


def tbt_excess(engine: Engine, now_s: float) -> float:
    """Sum over all gaps of an engine that have closed by now of (gap - SLO) / SLO where positive."""
    span = engine.span
    batch = engine.batch
    over = span.steps_over(now_s) if batch.members else 0
    return batch.tbt_excess(over, span.first_s, span.growth_s)


def unstamped_misses(engine: Engine, now_s: float) -> int:
    """Members of an engine's decode batch that have missed an SLO by now, which no stamp tells yet."""
    span = engine.span
    batch = engine.batch
    over = span.steps_over(now_s) if batch.members else 0
    return batch.unstamped_misses(over, span.first_s, span.growth_s)


def busy_s(engine: Engine, now_s: float) -> tuple[float, float]:
    """Time an engine has spent in steps by now, and how long its step under way lasts (0 if there is none), seconds."""
    span = engine.span
    if span.steps == 0:
        return engine.busy_s, 0.0
    elapsed_s = now_s - span.start_s
    done = whole_steps_within(elapsed_s, span.steps, span.first_s, span.growth_s)
    step_s = span.first_s + done * span.growth_s if done < span.steps else 0.0
    return engine.busy_s + elapsed_s, step_s
