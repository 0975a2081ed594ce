"""The pictures and tables of README and docs show the results that are stored beside them."""

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from command_lines import ROOT
from comparison.report.figures import COLORS, LADDER, STRATEGY_COLORS
from reference.defaults import BUILT_IN, CLOSED_FORM, DTYPES

SIZES = {"inputs": 784, "hidden": 50, "outputs": 10, "batch": 100}


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import pictures

    return pictures


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import measure

    return measure


def timed(**changes: Any) -> dict[str, Any]:
    row = {"backend": "numpy", "dtype": "float64", "strategy": "collocated", "median_s": 1e-3, "sizes": SIZES}
    return row | {"estimated": None} | changes


def compared(**changes: Any) -> dict[str, Any]:
    return {"backend": "numpy", "dtype": "float64", "quantities": 3, "disagreeing": 0, "worst": 0.2} | changes


TIMES = dict(zip(LADDER, (10.0, 8.0, 1e-2, 1e-3, 5e-4), strict=True))
TIMED = [timed(strategy=strategy, median_s=TIMES[strategy]) for strategy in reversed(LADDER)]


def test_the_bars_are_the_times_in_one_order_and_the_title_is_their_ratio(pictures: ModuleType) -> None:
    slower = [row | {"backend": "torch", "median_s": 99.0} for row in TIMED]
    bars, _ = pictures.headline([*slower, *TIMED], [compared()]).axes
    assert [bar.get_x() + bar.get_width() for bar in bars.patches] == pytest.approx(list(TIMES.values()))
    assert [text.get_text().strip().split(",")[0] for text in bars.texts] == [*LADDER[:-1], "backpropagation"]
    assert bars.get_title() == "collocated: 1/10,000 of the loop,\n2 times backpropagation"
    assert bars.get_xscale() == "log"
    estimated = [row | {"estimated": "9 of 99 parameters"} if row["strategy"] == "loop" else row for row in TIMED]
    texts = [text.get_text().strip() for text in pictures.headline(estimated, [compared()]).axes[0].texts]
    assert [text.split(", ")[0] for text in texts if ", ~" in text] == ["loop"]


def test_a_dot_is_the_worst_of_its_backend_and_dtype(pictures: ModuleType, measure: ModuleType) -> None:
    of = [
        ("numpy", "float64", 0.1, 1),
        ("numpy", "float64", 0.8, 2),
        ("jax", "float32", 0.3, 1),
        ("jax", "float32", 0, 0),
    ]
    rows = measure.worst_of_each(
        [dict(zip(("backend", "dtype", "gap", "bound"), row, strict=True), agrees=True) for row in of]
    )
    gaps = pictures.headline(TIMED, rows).axes[1]
    dots = [line for line in gaps.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [0.4, 0.3]
    assert [line.get_color() for line in dots] == [COLORS["numpy"], COLORS["jax"]]
    assert [label.get_text() for label in gaps.get_yticklabels()] == ["numpy float64", "jax float32"]
    assert gaps.get_title().startswith("All agree: 4 quantities")


@pytest.mark.parametrize("wrong", [{"gap": 7.0, "bound": 2.0}, {"gap": None, "bound": None}])
def test_a_disagreement_is_beyond_the_bound_and_in_the_title(
    wrong: dict[str, Any], pictures: ModuleType, measure: ModuleType
) -> None:
    row = {"backend": "jax", "dtype": "float32", "gap": 0.5, "bound": 1.0, "agrees": True}
    gaps = pictures.headline(TIMED, measure.worst_of_each([row, row | wrong | {"agrees": False}])).axes[1]
    assert max(line.get_xdata()[0] for line in gaps.lines if line.get_marker() == "o") > 1
    assert gaps.get_title().startswith("1 of 2 DISAGREE")


def test_an_excerpt_has_the_lines_that_are_named_and_dots_in_place_of_the_others(measure: ModuleType) -> None:
    output = "a\nb\nc\nd\n"
    assert measure.excerpt(output, None) == output
    assert measure.excerpt(output, "1-2,4") == "a\nb\n...\nd\n"
    assert measure.excerpt(output, "2-3") == "...\nb\nc\n...\n"


def test_goals_name_the_ties_of_a_sweeps_own_verdict(measure: ModuleType) -> None:
    rows = [
        timed(backend=backend, median_s=median_s, sizes={"hidden": 4}, ranked=True, ratio_interval=[1.0, 1.0])
        for backend, median_s in (("jax", 1.0), ("numpy", 2.0), ("torch", 1.1))
    ]
    best = [{"backend": "jax"}, {"backend": "numpy"}]
    result = {"speed": rows, "sweep": {"fastest": [{"dtype": "float64", "size": 4, "fastest": best}]}}
    widest = measure.tables._widest(lambda _: result, "hidden")
    assert measure.tables._fastest(widest, "float64") == "jax, 1 s; a tie with numpy"


def test_growth_has_the_closed_form_below_each_backend(pictures: ModuleType) -> None:
    rows = [
        timed(backend=backend, strategy=strategy, median_s=n * factor, sizes=SIZES | {"hidden": n}, dtype=dtype)
        for backend in BUILT_IN
        for strategy, factor in (("collocated", 2e-5), (CLOSED_FORM, 1e-5))
        for n in (10, 100)
        for dtype in DTYPES
    ]
    (axes,) = pictures.growth({"hidden": rows, "outputs": rows}).axes[:1]
    assert len(axes.lines) == 6
    for line, floor in zip(axes.lines[::2], axes.lines[1::2], strict=True):
        assert line.get_color() == floor.get_color()
        np.testing.assert_allclose(line.get_ydata(), 2 * np.asarray(floor.get_ydata()))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_the_polynomial_meets_the_difference_at_the_nodes(pictures: ModuleType) -> None:
    curve, interpolant, nodes = pictures.nodes().axes[0].lines[:3]
    at, values = nodes.get_data()
    np.testing.assert_allclose(np.interp(at, *interpolant.get_data()), values, atol=0.01)
    np.testing.assert_allclose(curve.get_ydata(), -np.asarray(curve.get_ydata())[::-1], atol=1e-12)  # odd
    assert nodes.get_color() == STRATEGY_COLORS["collocated"]


def test_strategies_have_colors_of_their_own() -> None:
    assert len(set(STRATEGY_COLORS.values())) == len(LADDER)


def test_the_tables_are_those_of_the_stored_results(measure: ModuleType) -> None:
    for page in measure.PAGES:
        text = page.read_text()
        assert measure.FIGURES.sub(measure._fill_table, text) == text


def test_every_block_has_a_command_or_is_computed(measure: ModuleType) -> None:
    for page in measure.PAGES:
        for _, name, _, body, _ in measure.FIGURES.findall(page.read_text()):
            commands = [line for line in body.splitlines() if line.startswith("$ ")]
            assert commands or hasattr(measure.tables, name.replace("-", "_")), name


def test_what_a_command_prints_is_put_below_it(measure: ModuleType) -> None:
    text = "<!-- figures: one -->\n```console\n$ echo 2; echo; tput cols\nold\n```\n<!-- end -->\n"
    again = measure.FIGURES.sub(lambda block: measure._run_block(block, names={"one"}, columns=77), text)
    assert again == text.replace("old\n", "2\n\n77\n")
    assert measure.FIGURES.sub(lambda block: measure._run_block(block, names=set(), columns=77), text) == text
    short = text.replace("one -->", "one 1 -->")
    again = measure.FIGURES.sub(lambda block: measure._run_block(block, names={"one"}, columns=77), short)
    assert again == short.replace("old\n", "2\n...\n")


def test_a_command_that_fails_stops_the_measurement(measure: ModuleType) -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        measure._run("exit 3", "one")


def test_what_is_stored_says_nothing_of_the_machine(measure: ModuleType) -> None:
    for path in measure.MEASURED.glob("*.json"):
        assert not {"environment", "settings"} & set(json.loads(path.read_text())), path.name
