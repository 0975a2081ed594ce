"""The figures, by what is drawn in them: numbers are read off the artists, not off pixels."""

from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ports import charts
from ports.figures import COLORS

BACKENDS = ("numpy", "torch", "jax")


def timed(**changes: Any) -> dict[str, Any]:
    row = {
        "backend": "numpy",
        "strategy": "collocated",
        "dtype": "float64",
        "device": "cpu",
        "what": "step",
        "first_call_s": 0.1,
        "median_s": 1e-3,
        "interval_s": [0.9e-3, 1.1e-3],
        "ranked": True,
        "sizes": {"inputs": 64, "hidden": 50, "outputs": 10, "batch": 100},
    }
    return row | changes


def compared(**changes: Any) -> dict[str, Any]:
    row = {"backend": "numpy", "strategy": "loop", "dtype": "float64", "gap": 1e-3, "bound": 1e-2, "agrees": True}
    return row | changes


def drawn(draw: Any, *arguments: Any) -> Axes:
    return charts.one(draw, *arguments).axes[0]


def points(axes: Axes, marker: str) -> set[tuple[float, float]]:
    return {
        (float(x), round(float(y), 6))
        for line in axes.lines
        if line.get_marker() == marker
        for x, y in zip(*line.get_data(), strict=True)
    }


def test_the_ladder_has_a_point_for_each_and_goes_down_from_the_loop() -> None:
    rows = [
        timed(backend=backend, strategy=strategy, median_s=10.0**-n, interval_s=[0.9 * 10.0**-n, 1.1 * 10.0**-n])
        for backend in BACKENDS
        for n, strategy in enumerate(charts.LADDER)
    ]
    axes = drawn(charts.ladder, rows)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(charts.LADDER)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    found = points(axes, "o")
    assert len(found) == 15
    assert {(x, round(y)) for x, y in found} == {(10.0**-n, n) for n in range(5)}
    assert axes.get_xscale() == "log"


def test_a_backend_has_its_color_everywhere() -> None:
    rows = [timed(backend=backend) for backend in BACKENDS]
    for axes in (drawn(charts.ladder, rows), drawn(charts.break_even, rows), drawn(charts.sizes, rows, "hidden", [])):
        assert set(COLORS.values()) <= {line.get_color() for line in axes.lines}
        legend = axes.get_legend()
        assert legend is not None
        labels = [text.get_text() for text in legend.get_texts()]
        assert labels[:3] == list(BACKENDS)


def test_agreement_shows_every_quantity_and_the_bound() -> None:
    axes = drawn(charts.agreement, [compared(gap=0.0), compared(), compared(strategy=None, bound=1e-1)])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["forward", "loop"]
    assert points(axes, "|") == {(1e-5, 1.0), (0.1, 1.0), (0.01, 0.0)}
    assert any(line.get_xdata()[0] == 1 == line.get_xdata()[1] for line in axes.lines if len(line.get_xdata()) == 2)
    assert points(axes, "X") == set()


def test_a_disagreement_stands_out_beyond_the_bound() -> None:
    wrong = [compared(gap=1.0, bound=0.01, agrees=False), compared(gap=None, bound=None, agrees=False)]
    axes = drawn(charts.agreement, [*wrong, compared()])
    assert points(axes, "X") == {(100.0, 1.0), (1e3, 1.0)}
    assert axes.get_xlim()[1] > 1e3


def test_crossovers_are_marked_where_they_are() -> None:
    rows = [timed(sizes={"hidden": n}, median_s=n * 1e-4, interval_s=[n * 9e-5, n * 1.1e-4]) for n in (10, 100)]
    crossing = {"size": 33.0, "faster_below": {"backend": "numpy"}, "faster_above": {"backend": "jax"}}
    axes = drawn(charts.sizes, rows, "hidden", [crossing])
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [33.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "100"]


def test_the_lead_changes_where_the_totals_meet() -> None:
    """1 ms a step from the start, against 0.1 ms after a second: they meet after 1,111 steps."""
    rows = [timed(first_call_s=1e-3), timed(backend="jax", first_call_s=1.0, median_s=1e-4)]
    found = points(drawn(charts.break_even, rows), "o")
    assert len(found) == 1
    assert next(iter(found))[0] == pytest.approx(1111, rel=0.03)


def test_pictures_show_each_backend_and_the_differences() -> None:
    images = np.random.default_rng(0).standard_normal((2, 8, 8))
    figure = charts.pictures([3, 1], {"numpy": images, "jax": images + 1e-9})
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 6
    assert [axes.get_title() for axes in shown[:2]] == ["unit 3", "unit 1"]
    np.testing.assert_allclose(shown[4].images[0].get_array(), 1e-9, rtol=1e-5)
    assert np.array_equal(shown[0].images[0].get_array(), images[0])


def test_training_draws_losses_and_accuracies() -> None:
    ends = [{"iteration": n, "train": 0.1 + n / 1000, "test": 0.1 + n / 2000} for n in (0, 150, 300)]
    runs = [
        {"backend": backend, "dtype": "float64", "losses": np.linspace(2, 1, 300).tolist(), "accuracies": ends}
        for backend in BACKENDS
    ]
    losses, accuracies = charts.training(runs).axes
    assert [len(line.get_xdata()) for line in losses.lines] == [300] * 3
    assert points(accuracies, "o") == {(0.0, 0.1), (150.0, 0.25), (300.0, 0.4)}
    assert points(accuracies, "s") == {(0.0, 0.1), (150.0, 0.175), (300.0, 0.25)}


def test_errors_by_step_are_drawn_as_they_are() -> None:
    row = {"strategy": "loop", "dtype": "float32", "steps": [1e-4, 1e-2], "errors": [1e-1, 1e-3]}
    axes = drawn(charts.step_errors, [row])
    assert axes.lines[0].get_xydata().tolist() == [[1e-4, 1e-1], [1e-2, 1e-3]]


@pytest.fixture
def figure() -> Figure:
    return charts.one(charts.ladder, [timed()])


def test_svg_is_a_file_that_takes_the_width_and_the_ink_it_is_given(figure: Figure) -> None:
    drawn = charts.svg(figure)
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)
    assert charts.INK not in drawn
    assert "currentColor" in drawn
    assert "currentColor" not in charts.svg(figure, "#ffffff")
    assert "<text" not in drawn  # letters are paths: no font is asked for


def test_the_same_figure_gives_the_same_file(figure: Figure) -> None:
    assert charts.svg(figure) == charts.svg(charts.one(charts.ladder, [timed()]))


def test_matplotlibs_settings_are_left_alone(figure: Figure) -> None:
    before = dict(matplotlib.rcParams)
    charts.svg(figure)
    assert dict(matplotlib.rcParams) == before
