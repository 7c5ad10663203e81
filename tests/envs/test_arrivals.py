"""Laws of the arrival processes: rates, burstiness, and the properties in their names."""

import numpy as np
import pytest

from envs.arrivals import ArrivalProcess, FixedRate, GammaRenewal, Mmpp, OnOff
from envs.lengths import Lengths, LogNormal, ParetoTail
from envs.streams import stream
from hardware_profiles.errors import InputError


def times_s(process: ArrivalProcess, count: int, seed: int = 0) -> np.ndarray:
    return process.times_s(count, stream(seed, 0), stream(seed, 1))


def cv(arrival_s: np.ndarray) -> float:
    gaps_s = np.diff(arrival_s)
    return float(gaps_s.std() / gaps_s.mean())


def test_fixed_rate_arrivals_are_evenly_spaced() -> None:
    assert times_s(FixedRate(4.0), 8).tolist() == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_cv_of_one_over_root_shape(shape: float) -> None:
    arrival_s = times_s(GammaRenewal(shape, mean_rate_rps=2.0), 200_000)
    assert cv(arrival_s) == pytest.approx(shape**-0.5, rel=0.02)
    assert len(arrival_s) / arrival_s[-1] == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(
    "process",
    [
        GammaRenewal(0.36),
        Mmpp((4.62, 7.01), (119.0, 74.0)),
        Mmpp((5.0, 0.0), (1.0, 4.0)),
        Mmpp((0.0, 1.0, 8.0), (3.0, 2.0, 1.0)),
        OnOff(on_s=2.0, off_log_mean=1.0, off_log_sd=0.7, burst_rps=9.0, burst_log_sd=0.5, gap_shape=0.36),
    ],
)
def test_counts_average_the_mean_rate_from_the_first_second(process: ArrivalProcess) -> None:
    horizon_s, runs = 3.0, 3000
    counts = np.array([(times_s(process, 400, seed) < horizon_s).sum() for seed in range(runs)])
    assert counts.max() < 400
    expected = process.mean_rate_rps * horizon_s
    assert abs(counts.mean() - expected) < 4 * counts.std() / np.sqrt(runs)


def test_mmpp_with_equal_rates_is_poisson() -> None:
    poisson_s = times_s(GammaRenewal(mean_rate_rps=3.0), 10_000)
    np.testing.assert_allclose(times_s(Mmpp((3.0, 3.0), (1.0, 5.0)), 10_000), poisson_s, rtol=1e-9)


@pytest.mark.parametrize(
    ("rates_rps", "sojourns_s"),
    [((0.0, 0.0), (1.0, 1.0)), ((-1.0, 2.0), (1.0, 1.0)), ((1.0, 2.0), (1.0, 0.0)), ((1.0, 2.0), (1.0,)), ((), ())],
)
def test_an_mmpp_without_arrivals_is_an_error(rates_rps: tuple[float, ...], sojourns_s: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="Mmpp"):
        Mmpp(rates_rps, sojourns_s)


def test_interrupted_poisson_has_the_closed_form_cv() -> None:
    # Gaps of an interrupted Poisson process: CV^2 = 1 + 2 r a / (a + b)^2 for rate r, and a, b the rates of leaving ON
    # and OFF (Kuczura 1973).
    rate, on_s, off_s = 3.0, 8.0, 16.0
    a, b = 1 / on_s, 1 / off_s
    expected = np.sqrt(1 + 2 * rate * a / (a + b) ** 2)
    assert cv(times_s(Mmpp((rate, 0.0), (on_s, off_s)), 400_000)) == pytest.approx(expected, rel=0.05)


def test_silences_and_bursts_of_on_off_have_the_given_means() -> None:
    process = OnOff(on_s=20.0, off_log_mean=3.0, off_log_sd=0.5, burst_rps=200.0, burst_log_sd=0.1, gap_shape=1.0)
    gaps_s = np.diff(times_s(process, 400_000))
    silences_s = gaps_s[gaps_s > 1.0]  # at 200/s, gaps within a burst are much shorter
    assert silences_s.mean() == pytest.approx(np.exp(3.0 + 0.5**2 / 2), rel=0.15)
    assert np.median(silences_s) == pytest.approx(np.exp(3.0), rel=0.15)


def test_lengths_follow_their_distribution() -> None:
    draw = Lengths((LogNormal(6.0, 1.0),)).draw(100_000, stream(0, 2))
    assert np.percentile(draw, [15.87, 50, 84.13]) == pytest.approx(np.exp([5.0, 6.0, 7.0]), rel=0.03)
    mixed = Lengths((LogNormal(2.0, 0.1, 0.25), LogNormal(8.0, 0.1, 0.75))).draw(100_000, stream(0, 2))
    assert (mixed < 100).mean() == pytest.approx(0.25, abs=0.01)


def test_a_pareto_tail_has_its_index() -> None:
    tail = ParetoTail(1000, 1.5, 1e6)
    tokens = Lengths((LogNormal(6.9, 1.0),), tail=tail).draw(400_000, stream(0, 2))
    over = tokens[tokens > tail.start]
    # Hill's estimator; truncation at a thousand times the start has little effect.
    assert 1 / np.log(over / tail.start).mean() == pytest.approx(tail.alpha, rel=0.03)
    assert tokens.max() <= tail.end


def test_a_stream_equals_that_of_spawn() -> None:
    spawned = np.random.SeedSequence(7).spawn(4)
    for key in range(4):
        assert stream(7, key).random() == np.random.default_rng(spawned[key]).random()
