import numpy as np
import pytest

import ports
from ports import studies
from ports.agreement import Subject, random_problem
from ports.bounds import Problem
from ports.studies import errors_by_step, images
from reference.datasets import load


@pytest.fixture(scope="module")
def problem() -> Problem:
    data = load("random")
    return random_problem(data.x_train, data.t_train, hidden=3, samples=6, seed=0)


def test_the_error_is_a_v_for_the_loop_and_has_no_left_arm_for_collocated(problem: Problem) -> None:
    found = {(row["strategy"], row["dtype"]): dict(zip(row["steps"], row["errors"], strict=True))
             for row in errors_by_step(problem)}  # fmt: skip
    loop, collocated = found["loop", "float64"], found["collocated", "float64"]
    small, middle, large = (min(studies.STEPS, key=lambda h: abs(h / wanted - 1)) for wanted in (1e-11, 1e-5, 1e-1))
    assert loop[small] > 1e3 * loop[middle]
    assert collocated[small] < 1e-14
    assert loop[large] == pytest.approx(collocated[large], rel=1e-6)  # truncation, which both have
    assert loop[large] > 1e3 * loop[middle]
    assert set(collocated) == set(studies.STEPS)


def test_a_step_that_moves_nothing_has_no_error(problem: Problem) -> None:
    float32 = next(row for row in errors_by_step(problem) if (row["strategy"], row["dtype"]) == ("loop", "float32"))
    assert 0 < len(float32["steps"]) < len(studies.STEPS)
    assert min(float32["steps"]) > 1e-9


@pytest.mark.parametrize("strategy", ["loop", "collocated"])
def test_any_other_refusal_is_an_error(strategy: str, problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("another reason")

    monkeypatch.setitem(studies.GRADIENTS, strategy, refuse)
    with pytest.raises(ValueError, match="another reason"):
        errors_by_step(problem)


def test_images_are_those_of_the_units_with_the_largest_gradient(problem: Problem) -> None:
    port = ports.load("numpy")
    units, found = images([Subject("numpy", port, "float64", "cpu")], problem, units=2)
    gradient = port.GRADIENTS["collocated"](*problem).W1
    largest = np.abs(gradient).max(0)
    assert units == np.argsort(-largest)[:2].tolist()
    np.testing.assert_array_equal(found["numpy"][0].ravel(), gradient[:, units[0]])
    assert found["numpy"].shape == (2, 8, 8)


def test_inputs_that_are_no_square_have_no_images(problem: Problem) -> None:
    other = random_problem(problem.x[:, :7], problem.t, hidden=3, samples=6, seed=0)
    assert images([Subject("numpy", ports.load("numpy"), "float64", "cpu")], other) == ([], {})
