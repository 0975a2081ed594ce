"""The figures show what they say, in the colors of their backends, and leave matplotlib's state as it is."""

import sys
from typing import Any

import numpy as np

from comparison.report import agreement_figures
from comparison.report.figures import COLORS, OTHERS, backend_colors
from comparison.report.training_figure import Curves, running_mean, training_figure
from drawings import drawn, points

RUN = Curves(np.linspace(2, 1, 250), np.array([[0, 0.1, 0.2], [125, 0.5, 0.4], [250, 0.9, 0.8]]))


def test_losses_and_accuracies_of_each_run() -> None:
    keys = [("numpy", "float64"), ("jax", "float64"), ("mine", "float64")]
    figure = training_figure(dict.fromkeys(keys, RUN), epoch=125)
    losses, accuracies = figure.axes
    raw, *means = losses.lines
    np.testing.assert_array_equal(raw.get_ydata(), RUN.losses)
    for line, color in zip(means, (COLORS["numpy"], COLORS["jax"], OTHERS[0]), strict=True):
        assert line.get_color() == color
        np.testing.assert_array_equal(line.get_ydata(), running_mean(RUN.losses)[1])
    assert len(accuracies.lines) == 6
    np.testing.assert_array_equal(accuracies.lines[1].get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(accuracies.lines[0].get_ydata(), RUN.accuracies[:, 1])
    np.testing.assert_array_equal(accuracies.lines[1].get_ydata(), RUN.accuracies[:, 2])
    assert [text.get_text() for text in accuracies.get_legend().get_texts()] == ["training", "test"]
    assert "matplotlib.pyplot" not in sys.modules


def test_two_dtypes_are_told_apart() -> None:
    figure = training_figure({("numpy", "float64"): RUN, ("numpy", "float32"): RUN}, epoch=125)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["each mini-batch", "numpy float64", "numpy float32"]
    assert len({line.get_linestyle() for line in figure.axes[0].lines[1:]}) == 2


def test_a_mean_is_of_what_there_is() -> None:
    at, means = running_mean(np.arange(300.0))
    np.testing.assert_array_equal(at, np.arange(1, 301))
    np.testing.assert_allclose(means[[0, 1, 98, 99, 100, 299]], [0, 0.5, 49, 49.5, 50.5, 249.5])


def test_other_ports_have_colors_of_their_own() -> None:
    colors = backend_colors(["mine", "jax", "yours", "mine"])
    assert len({*colors.values()}) == 5
    assert colors["jax"] == "#009E73"


def compared(**changes: Any) -> dict[str, Any]:
    row = {"backend": "numpy", "strategy": "loop", "dtype": "float64", "gap": 1e-3, "bound": 1e-2, "agrees": True}
    return row | changes


def test_agreement_shows_every_quantity_and_the_bound() -> None:
    axes = drawn(agreement_figures.draw_agreement, [compared(gap=0.0), compared(), compared(strategy=None, bound=1e-1)])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["forward", "loop"]
    assert points(axes, "|") == {(1e-5, 1.0), (0.1, 1.0), (0.01, 0.0)}
    assert any(line.get_xdata()[0] == 1 == line.get_xdata()[1] for line in axes.lines if len(line.get_xdata()) == 2)
    assert points(axes, "X") == set()


def test_a_disagreement_stands_out_beyond_the_bound() -> None:
    wrong = [compared(gap=1.0, bound=0.01, agrees=False), compared(gap=None, bound=None, agrees=False)]
    axes = drawn(agreement_figures.draw_agreement, [*wrong, compared()])
    assert points(axes, "X") == {(100.0, 1.0), (1e3, 1.0)}
    assert axes.get_xlim()[1] > 1e3


def test_pictures_show_each_backend_and_the_differences() -> None:
    images = np.random.default_rng(0).standard_normal((2, 8, 8))
    figure = agreement_figures.gradient_pictures([3, 1], {"numpy": images, "jax": images + 1e-9})
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 6
    assert [axes.get_title() for axes in shown[:2]] == ["unit 3", "unit 1"]
    np.testing.assert_allclose(shown[4].images[0].get_array(), 1e-9, rtol=1e-5)
    assert np.array_equal(shown[0].images[0].get_array(), images[0])


def test_errors_by_step_are_drawn_as_they_are() -> None:
    row = {"strategy": "loop", "dtype": "float32", "steps": [1e-4, 1e-2], "errors": [1e-1, 1e-3]}
    axes = drawn(agreement_figures.draw_step_errors, [row])
    assert axes.lines[0].get_xydata().tolist() == [[1e-4, 1e-1], [1e-2, 1e-3]]
