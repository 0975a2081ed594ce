from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, random_problem
from comparison.report import step_study
from comparison.report.step_study import errors_by_step, gradient_images
from reference.datasets import load
from reference.two_layer_net import Params


@pytest.fixture(scope="module")
def problem() -> Problem:
    data = load("random")
    return random_problem(data.x_train, data.t_train, hidden=3, samples=6, seed=0)


def test_the_error_is_a_v_for_the_loop_and_has_no_left_arm_for_collocated(problem: Problem) -> None:
    errors = {(row["strategy"], row["dtype"]): dict(zip(row["steps"], row["errors"], strict=True))
             for row in errors_by_step(problem)}  # fmt: skip
    loop, collocated = errors["loop", "float64"], errors["collocated", "float64"]
    small, middle, large = (min(step_study.STEPS, key=lambda h: abs(h / wanted - 1)) for wanted in (1e-11, 1e-5, 1e-1))
    assert loop[small] > 1e3 * loop[middle]
    assert collocated[small] < 1e-14
    assert loop[large] == pytest.approx(collocated[large], rel=1e-6)  # truncation, which both have
    assert loop[large] > 1e3 * loop[middle]
    assert set(collocated) == set(step_study.STEPS)


def test_a_step_that_moves_nothing_has_no_error(problem: Problem) -> None:
    float32 = next(row for row in errors_by_step(problem) if (row["strategy"], row["dtype"]) == ("loop", "float32"))
    assert 0 < len(float32["steps"]) < len(step_study.STEPS)
    assert min(float32["steps"]) > 1e-9


def test_the_sample_is_one_of_different_parameters_and_the_same_every_time(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, loop = [], step_study.GRADIENTS["loop"]

    def kept(*net: Any, entries: Params, **options: Any) -> Params:
        chosen.append([entry.tolist() for entry in entries])
        return loop(*net, entries=entries, **options)

    monkeypatch.setitem(step_study.GRADIENTS, "loop", kept)
    monkeypatch.setattr(step_study, "STEPS", (1e-4,))
    assert errors_by_step(problem) == errors_by_step(problem, 0) != errors_by_step(problem, 1)
    for entry, p in zip(chosen[0], problem.params, strict=True):
        assert entry == sorted(set(entry))
        assert len(entry) == min(p.size, step_study.SAMPLE)


def test_the_derivative_is_of_the_longest_precision(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    given, derivative = [], step_study.closed_form

    def kept(params: Params, x: Any, t: Any) -> Any:
        given.extend(array.dtype for array in (*params, x))
        return derivative(params, x, t)

    monkeypatch.setattr(step_study, "closed_form", kept)
    errors_by_step(problem)
    assert set(given) == {np.dtype(np.longdouble)}


@pytest.mark.parametrize("strategy", ["loop", "collocated"])
def test_any_other_refusal_is_an_error(strategy: str, problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("another reason")

    monkeypatch.setitem(step_study.GRADIENTS, strategy, refuse)
    with pytest.raises(ValueError, match="another reason"):
        errors_by_step(problem)


def test_images_are_those_of_the_units_with_the_largest_gradient(problem: Problem) -> None:
    port = ports.load("numpy")
    units, images = gradient_images([Subject("numpy", port, "float64", "cpu")], problem, units=2)
    gradient = port.GRADIENTS["collocated"](*problem).W1
    largest = np.abs(gradient).max(0)
    assert units == np.argsort(-largest)[:2].tolist()
    np.testing.assert_array_equal(images["numpy"][0].ravel(), gradient[:, units[0]])
    assert images["numpy"].shape == (2, 8, 8)


def test_images_are_of_four_units_at_most_and_float64(problem: Problem) -> None:
    larger = random_problem(problem.x, problem.t, hidden=5, samples=6, seed=0)
    units, images = gradient_images([Subject("numpy", ports.load("numpy"), "float32", "cpu")], larger)
    assert len(units) == 4
    assert images["numpy"].dtype == np.float64


def test_inputs_that_are_no_square_have_no_images(problem: Problem) -> None:
    other = random_problem(problem.x[:, :7], problem.t, hidden=3, samples=6, seed=0)
    assert gradient_images([Subject("numpy", ports.load("numpy"), "float64", "cpu")], other) == ([], {})
