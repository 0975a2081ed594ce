"""The trials meet every kind of size, value and argument, and see what a port does with its results."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Agreement, Subject, new_arguments
from comparison.agreement.kinds import LABELS, LAYOUTS, VALUES, draw, place, recording, spoil
from comparison.agreement.training import TRAININGS, shuffled
from comparison.agreement.trials import TRIALS, check_trial, compiles_each_shape, odd_entries
from comparison.conformance.problems import loaded
from members import with_members
from reference.collocation import make_plan
from reference.defaults import DTYPES, STRATEGIES
from reference.two_layer_net import Params

NUMPY = Subject("numpy", ports.load("numpy"), "float64", "cpu")
SHAPES = [trial.shape for trial in TRIALS]


# --- what they cover


@pytest.mark.parametrize("axis", range(4), ids="BIHO")
@pytest.mark.parametrize("least", [1, 2, 64, 128, 256, 1024])
def test_each_size_is_1_and_2_and_large_in_turn(axis: int, least: int) -> None:
    sizes = {shape[axis] for shape in SHAPES}
    assert least in sizes if least <= 2 else max(sizes) > least
    assert {size % 2 for size in sizes if size > 2} == {0, 1}


@pytest.mark.parametrize(("one", "other"), list(combinations(range(4), 2)), ids=lambda n: "BIHO"[n])
def test_each_two_sizes_are_equal_and_more_than_2_in_turn(one: int, other: int) -> None:
    assert any(shape[one] == shape[other] > 2 for shape in SHAPES)


def test_each_kind_of_argument_is_met() -> None:
    assert {trial.labels for trial in TRIALS} == set(LABELS) - {"one-hot lists"}
    assert {trial.layout for trial in TRIALS} == set(LAYOUTS)
    assert {type(trial.h) for trial in TRIALS} >= {float, np.float32, np.float64}
    assert {type(trial.memory) for trial in TRIALS} >= {int, np.float32, np.int64}
    assert {type(training.learning_rate) for training in TRAININGS} == {float, np.float32, np.float64}


def test_no_step_is_a_power_of_ten_and_all_sizes_are_met() -> None:
    steps = [float(trial.h) for trial in TRIALS]
    assert all(np.log10(h) % 1 > 0.01 for h in steps)
    assert (min(steps) < 1e-6, max(steps) > 0.5) == (True, True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_programs_are_compiled_each_strategy_still_has_a_net_of_its_own(dtype: str) -> None:
    compiled = {strategy for case in (*TRIALS, *TRAININGS) for d, strategy in case.compiled if d == dtype}
    assert compiled >= {"structured", "collocated"}
    everywhere = {strategy for case in (*TRIALS, *TRAININGS) for _, strategy in case.compiled}
    assert everywhere == {"loop", "batched", "structured", "collocated", "closed form"}


# --- problems


def test_each_value_changes_one_member_only_and_but_one_no_plan() -> None:
    problem = draw((7, 5, 5, 3), 0)
    plan = make_plan(3e-3, float(np.abs(problem.x).max()), float(np.abs(problem.params.W2).max()), "float64")
    changed = []
    for kind, change in VALUES.items():
        new = change(problem)
        members = [(*problem.params, *problem[1:]), (*new.params, *new[1:])]
        changed.append([not np.array_equal(a, b) for a, b in zip(*members, strict=True)])
        problem = new
        max_abs_x, max_abs_W2 = (float(np.abs(a).max()) for a in (problem.x, problem.params.W2))
        new_plan = make_plan(3e-3, max_abs_x, max_abs_W2, "float64")
        assert (new_plan == plan) == (kind != "W2 grown")
        plan = new_plan
    assert [sum(flags) for flags in changed] == [int(kind not in ("drawn", "again")) for kind in VALUES]
    assert np.any(changed, axis=0).all()


def test_the_largest_numbers_that_are_drawn_are_negative() -> None:
    problem = draw((7, 5, 5, 3), 3)
    for array in (problem.x, problem.params.W2):
        assert array.min() == -1 < -array.max() < 0
    assert 0.1 < (problem.x == 0).mean() < 0.5


def test_pixels_are_whole_numbers_up_to_255() -> None:
    x = draw((7, 5, 5, 3), 0, 255.0).x
    assert (x.min(), x.max()) == (0, 255)
    np.testing.assert_array_equal(x, np.round(x))


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_each_kind_are_the_same_classes(kind: str) -> None:
    t = np.array([0, 2, 1, 1])
    labels = np.asarray(LABELS[kind](t, 3))
    np.testing.assert_array_equal(labels.argmax(axis=1) if labels.ndim == 2 else labels, t)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_arrays_in_each_layout_are_the_same_numbers_and_lie_otherwise(backend: str, layout: str) -> None:
    subject = Subject(backend, loaded(backend), "float64", "cpu")
    for array in (problem := draw((4, 3, 5, 2), 0)).x, problem.params.b1:
        own = subject.port.from_numpy(array, dtype="float64", device="cpu")
        placed = LAYOUTS[layout](own)
        np.testing.assert_array_equal(subject.port.to_numpy(placed), array)
    x = place(subject, problem, layout, None).x
    plain = x.flags.c_contiguous if backend == "numpy" else x.is_contiguous()
    assert plain == (layout in ("rows", "offset") or (backend, layout) == ("torch", "reversed"))


def test_a_problem_takes_the_place_of_another_in_the_same_arrays() -> None:
    first = place(NUMPY, draw((4, 3, 5, 2), 0), "columns", None)
    other = draw((4, 3, 5, 2), 1)
    second = place(NUMPY, other, "columns", first)
    for before, after, array in zip(
        (*first.params, first.x), (*second.params, second.x), (*other.params, other.x), strict=True
    ):
        assert before is after
        np.testing.assert_array_equal(after, array)


def test_odd_entries_are_in_no_order_twice_in_two_axes_and_none() -> None:
    W1, b1, W2, b2 = odd_entries(draw((7, 5, 3, 2), 0).params, 0)
    assert (W1.ndim, b1.size, W2.dtype, b2.ndim) == (2, 0, np.int32, 1)
    assert len(np.unique(W1)) < W1.size
    assert (np.diff(W1.ravel()) < 0).any()


def test_mini_batches_repeat_samples_and_have_the_first_and_the_last() -> None:
    for size in (1, 2, 5):
        batches = shuffled(70_001, 3, size, 0)
        assert batches.shape == (3, size)
        assert batches[0, 0] == 70_000
        assert all(len(set(batch)) == max(1, size - 1) for batch in batches[1:])


# --- what they see


def rows_of(**members: Any) -> list[Agreement]:
    subject = with_members(**members)
    return list(check_trial(subject, TRIALS[0], STRATEGIES, False, 0))


def test_a_right_port_passes() -> None:
    rows = rows_of()
    assert all(row.agrees for row in rows)
    assert {row.strategy for row in rows} == {None, "closed form", *STRATEGIES}
    assert {row.problem.partition(",")[0] for row in rows} == {"7x5x5x3"}


def test_a_buffer_that_results_share_is_seen() -> None:
    buffer = np.empty((7, 3))

    def predict(params: Params, x: np.ndarray) -> np.ndarray:
        buffer[...] = NUMPY.port.predict(params, x)
        return buffer

    wrong = [row for row in rows_of(predict=predict) if not row.agrees]
    assert [row.quantity for row in wrong] == ["results kept"]


def test_a_result_that_is_returned_again_is_seen_after_its_owner_has_changed_it() -> None:
    cache: dict[bytes, Any] = {}

    def gradient(params: Params, x: np.ndarray, t: Any) -> Params:
        key = b"".join(a.tobytes() for a in (*params, x, np.asarray(t)))
        return cache.setdefault(key, NUMPY.port.gradient(params, x, t))

    wrong = [row for row in rows_of(gradient=gradient) if not row.agrees]
    assert {row.quantity for row in wrong} == {*Params._fields, "results kept"}
    assert {row.problem for row in wrong} == {"7x5x5x3, again", "7x5x5x3"}


def test_results_are_recorded_and_spoilt() -> None:
    results: list[Any] = []
    port = recording(NUMPY.port, results)
    problem = draw((7, 5, 3, 2), 0)
    params, x, t = new_arguments(NUMPY, problem)
    gradient = port.GRADIENTS["structured"](params, x, t)
    trained, losses = port.train_steps(params, x, t, np.array([[0, 1]]), strategy="structured", learning_rate=0.1)
    for got, expected in zip(results, (*gradient, *trained, losses), strict=True):
        assert got is expected
    spoil(results)
    assert all(np.isnan(array).all() for array in results)


@pytest.mark.parametrize(("backend", "compiles"), [("numpy", False), ("torch", False), ("jax", True)])
def test_jax_compiles_each_shape(backend: str, compiles: bool) -> None:
    assert compiles_each_shape(Subject(backend, loaded(backend), "float64", "cpu")) == compiles
