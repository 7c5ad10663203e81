"""Simulated time: exact, ordered, and copyable."""

from math import inf

import simpy
from hypothesis import given
from hypothesis import strategies as st

from envs.cluster.call import Call
from envs.cluster.clock import Clock

times = st.floats(0, 1e6)


class Log:
    """Records the times at which its methods are called."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls: list[tuple[float, object]] = []

    def note(self, what: object) -> object:
        return lambda _event: self.calls.append((self.clock.now, what))


@given(times_s=st.lists(times))
def test_calls_are_in_order_of_time_and_then_of_creation(times_s: list[float]) -> None:
    clock = Clock()
    log = Log(clock)
    for number, time_s in enumerate(times_s):
        clock.call_at(time_s, Call(log.note(number)))
    assert clock.drain(inf) == len(times_s)
    assert log.calls == sorted((time_s, number) for number, time_s in enumerate(times_s))


@given(start_s=times, gap_s=st.floats(0, 10))
def test_times_are_exact_to_the_last_bit(start_s: float, gap_s: float) -> None:
    clock = Clock()
    log = Log(clock)
    target_s = start_s + gap_s
    clock.call_at(start_s, Call(lambda _event: clock.call_at(target_s, Call(log.note("there")))))
    clock.drain(inf)
    assert log.calls == [(target_s, "there")]


def test_call_first_at_is_before_other_calls_and_passes_its_value() -> None:
    clock = Clock()
    log = Log(clock)
    clock.call_at(1.0, Call(log.note("planned before")))
    clock.call_first_at(1.0, lambda event: log.calls.append((clock.now, event.value)), "first")
    clock.call_at(0.5, Call(log.note("earlier")))
    clock.drain(inf)
    assert log.calls == [(0.5, "earlier"), (1.0, "first"), (1.0, "planned before")]


@given(times_s=st.lists(times), stop_s=times)
def test_advancing_stops_before_events_at_that_time(times_s: list[float], stop_s: float) -> None:
    clock = Clock()
    log = Log(clock)
    for time_s in [*times_s, stop_s]:
        clock.call_at(time_s, Call(log.note(None)))
    assert clock.advance_to(stop_s) == sum(time_s < stop_s for time_s in times_s)
    assert clock.now == stop_s
    assert [time_s for time_s, _ in log.calls] == sorted(time_s for time_s in times_s if time_s < stop_s)
    assert clock.peek() == stop_s


@given(times_s=st.lists(times, min_size=1), stop_s=times)
def test_draining_includes_its_last_instant_and_stops_there(times_s: list[float], stop_s: float) -> None:
    clock = Clock()
    log = Log(clock)
    for time_s in times_s:
        clock.call_at(time_s, Call(log.note(None)))
    done = [time_s for time_s in times_s if time_s <= stop_s]
    assert clock.drain(stop_s) == len(done) == len(log.calls)
    assert clock.now == (stop_s if len(done) < len(times_s) else max(done))


def test_simpy_processes_run_together_with_calls() -> None:
    clock = Clock()
    log = Log(clock)

    def process(env: simpy.Environment):  # type: ignore[no-untyped-def]
        yield env.timeout(1.5)
        log.calls.append((env.now, "process"))

    clock.process(process(clock))
    clock.call_at(1.0, Call(log.note("call")))
    clock.call_at(2.0, Call(log.note("call")))
    clock.run()
    assert log.calls == [(1.0, "call"), (1.5, "process"), (2.0, "call")]


# ---- copies ---------------------------------------------------------------------------------------------------------


class Listener:
    """An object whose methods are called."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.heard: list[tuple[float, object]] = []

    def tell(self, event: simpy.Event) -> None:
        value = event._value
        self.heard.append((self.clock.now, value if isinstance(value, int | tuple) else None))


@given(calls=st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=20), stop_s=st.floats(0, 100))
def test_a_copied_clock_calls_the_copied_listener_in_the_same_order(
    calls: list[tuple[float, bool]], stop_s: float
) -> None:
    clock = Clock()
    listener = Listener(clock)
    for number, (time_s, first) in enumerate(calls):
        if first:
            clock.call_first_at(time_s, listener.tell, number)
        else:
            clock.call_at(time_s, Call(listener.tell))
    clock.advance_to(stop_s)
    twin = Clock()
    its = Listener(twin)
    twin.copy_calls(clock, {listener: its})
    before = list(listener.heard)
    assert twin.now == clock.now
    twin.call_at(100.0, Call(its.tell))  # a new call is after the pending ones at its time
    twin.drain(inf)
    assert listener.heard == before
    clock.drain(inf)
    assert its.heard == [*listener.heard[len(before) :], (100.0, None)]


@given(times_s=st.lists(times, min_size=1, unique=True), gone=st.integers(0))
def test_only_the_cancelled_call_is_not_made(times_s: list[float], gone: int) -> None:
    clock = Clock()
    log = Log(clock)
    numbers = [clock.timeline.call_unless_cancelled(time_s, Call(log.note(time_s))) for time_s in times_s]
    gone %= len(times_s)
    clock.timeline.cancel(numbers[gone])
    clock.drain(inf)
    assert [value for _, value in log.calls] == sorted(times_s[:gone] + times_s[gone + 1 :])
