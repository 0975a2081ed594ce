"""The figures, by what is drawn in them: numbers are read off the artists, not off pixels."""

from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure

from comparison.report import figures, timing_figures
from comparison.report.figures import COLORS
from drawings import drawn, points

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


def test_the_ladder_has_a_point_for_each_and_goes_down_from_the_loop() -> None:
    rows = [
        timed(backend=backend, strategy=strategy, median_s=10.0**-n, interval_s=[0.9 * 10.0**-n, 1.1 * 10.0**-n])
        for backend in BACKENDS
        for n, strategy in enumerate(figures.LADDER)
    ]
    axes = drawn(timing_figures.draw_ladder, rows)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(figures.LADDER)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    drawn_points = points(axes, "o")
    assert len(drawn_points) == 15
    assert {(x, round(y)) for x, y in drawn_points} == {(10.0**-n, n) for n in range(5)}
    assert axes.get_xscale() == "log"


def test_a_backend_has_its_color_everywhere() -> None:
    rows = [timed(backend=backend) for backend in BACKENDS]
    for axes in (
        drawn(timing_figures.draw_ladder, rows),
        drawn(timing_figures.draw_break_even, rows),
        drawn(timing_figures.draw_sizes, rows, "hidden", []),
    ):
        assert set(COLORS.values()) <= {line.get_color() for line in axes.lines}
        legend = axes.get_legend()
        assert legend is not None
        labels = [text.get_text() for text in legend.get_texts()]
        assert labels[:3] == list(BACKENDS)


def test_crossovers_are_marked_where_they_are() -> None:
    rows = [timed(sizes={"hidden": n}, median_s=n * 1e-4, interval_s=[n * 9e-5, n * 1.1e-4]) for n in (10, 100)]
    crossing = {"size": 33.0, "faster_below": {"backend": "numpy"}, "faster_above": {"backend": "jax"}}
    axes = drawn(timing_figures.draw_sizes, rows, "hidden", [crossing])
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [33.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "100"]


def test_the_lead_changes_where_the_totals_meet() -> None:
    """1 ms a step from the start, against 0.1 ms after a second: they meet after 1,111 steps; a third never leads."""
    rows = [timed(first_call_s=1e-3), timed(backend="jax", first_call_s=1.0, median_s=1e-4)]
    rows.append(timed(backend="torch", first_call_s=0.5, median_s=1e-2))
    axes = drawn(timing_figures.draw_break_even, rows)
    assert len(points(axes, "o")) == 1
    assert next(iter(points(axes, "o")))[0] == pytest.approx(1111, rel=0.03)
    assert [text.get_text().partition(" from ")[0] for text in axes.texts] == ["jax"]


@pytest.fixture
def figure() -> Figure:
    return figures.single_figure(timing_figures.draw_ladder, [timed()])


def test_svg_is_a_file_that_takes_the_width_and_the_ink_it_is_given(figure: Figure) -> None:
    drawn = figures.svg(figure)
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)
    assert figures.INK not in drawn
    assert "currentColor" in drawn
    assert "currentColor" not in figures.svg(figure, "#ffffff")
    assert "<text" not in drawn  # letters are paths: no font is asked for


def test_the_same_figure_gives_the_same_file(figure: Figure) -> None:
    assert figures.svg(figure) == figures.svg(figures.single_figure(timing_figures.draw_ladder, [timed()]))


def test_matplotlibs_settings_stay(figure: Figure) -> None:
    before = dict(dict.items(matplotlib.rcParams))  # its own items() would choose a backend, which imports pyplot
    figures.svg(figure)
    assert dict(dict.items(matplotlib.rcParams)) == before
