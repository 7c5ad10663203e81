"""Figures of a comparison: a policy keeps its style, and every figure is drawn without a display."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.analysis.comparison import Groups
from experiments.reports.figures import comparison_figures as figures
from experiments.reports.figures.style import COLOURS, OTHERS, line_styles, save, text_colour
from experiments.runs.cache import Cache
from experiments.runs.trial import run_trials
from tests.experiments.made_up import outcome, results, trial

PNG = b"\x89PNG\r\n"
NAMES = st.lists(st.text(min_size=1), min_size=1, max_size=30, unique=True)


@given(NAMES, st.data())
def test_every_coloured_policy_has_a_style_and_the_others_are_grey(names: list[str], data: st.DataObject) -> None:
    coloured = data.draw(st.lists(st.sampled_from(names), unique=True))
    styles = line_styles(names, coloured)
    assert list(styles) == names
    drawn = [(styles[name].colour, styles[name].dashes) for name in coloured]
    assert len(set(drawn)) == len(drawn) or len(drawn) > 4 * len(COLOURS)
    grey = {styles[name] for name in names if name not in coloured}
    assert len(grey) <= 1
    assert all(style.marker == "" for style in grey)
    assert all(styles[name].marker for name in coloured)


def test_text_can_be_read_on_its_background() -> None:
    assert [text_colour(one) for one in ((1, 1, 1), (0, 0, 0), (1, 1, 0), (0, 0, 1))] == [
        "black",
        "white",
        "black",
        "white",
    ]


@pytest.mark.slow
def test_the_heat_map_names_every_policy_and_load() -> None:
    groups = results({"static": 3.0, "kairos": 1.0, "mine=a/policy.npz": 2.0, "lookahead": 0.5}, workloads=("v", "w"))
    above, below = figures.heat_map(groups).axes
    for axes in (above, below):
        assert [text.get_text() for text in axes.get_yticklabels()] == [
            "lookahead (clairvoyant)",
            "kairos",
            "mine (learned)",
            "static",
        ]
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0.5", "0.9"] * 2
    texts = [text.get_text() for text in above.texts]
    assert "+0" in texts  # static against itself
    assert "-51" in texts  # kairos at load 0.9, see the report's tests


def test_a_change_that_is_not_significant_is_in_brackets() -> None:
    p95_s = {"static": (1.0, 1.0), "kairos": (1.1, 1.1), "random": (0.5, 1.3), "round-robin": (12.3, 12.3)}
    runs = [outcome(name, seed=seed, ttft_p95_s=of[seed % 2]) for name, of in p95_s.items() for seed in range(8)]
    (group,) = Groups.of(runs).values()
    assert [figures._change(one, group["static"]) for one in group.values()] == ["+0", "+10", "(-10)", "x12"]


@pytest.mark.slow
def test_every_figure_is_drawn_and_equal_figures_have_equal_bytes(tmp_path: Path) -> None:
    trials = [
        trial(policy, load, seed)
        for load in (0.5, 1.0)
        for seed in (0, 1)
        for policy in ("static", "kairos", "random", "round-robin")
    ]
    groups = Groups.of(run_trials(trials, Cache(tmp_path / "runs")))
    few, group = ["static", "kairos"], groups["toy", 1.0]
    for round_ in ("a", "b"):
        drawn = {
            "heat": figures.heat_map(groups),
            "cdf": figures.ttft_distribution(group, few, 2.0, "title"),
            "cdf-all": figures.ttft_distribution(group, list(group), None, "title"),
            "parts": figures.ttft_breakdown(group, "title"),
            "load": figures.attainment_by_load(groups, few, "load", "title"),
        }
        for name, figure in drawn.items():
            save(figure, tmp_path / f"{name}-{round_}.png")
    legend = [text.get_text() for text in drawn["cdf"].legends[0].get_texts()]
    assert legend == ["static", "kairos", OTHERS]
    for name in drawn:
        content = (tmp_path / f"{name}-a.png").read_bytes()
        assert content.startswith(PNG)
        assert content == (tmp_path / f"{name}-b.png").read_bytes()
