"""Training stays within a plan, and is run again where its weights outgrow it."""

import pytest

from reference.collocation import make_plan, run_within_plan

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


def trained(strategy, max_abs_W2, *, grown=(), h=1e-2, max_abs_x=1.0, dtype="float64"):
    """Run a training whose runs end at the weights `grown`, one after the other; return its result and its plans."""
    plans, ends = [], iter(grown)

    def run(plan):
        plans.append(plan)
        return f"result {len(plans)}", next(ends)

    result = run_within_plan(run, strategy, h, {"W2": max_abs_W2, "x": max_abs_x}, dtype)
    return result, plans


PLANNED = pytest.mark.parametrize("strategy", ["structured", "collocated"])


@DTYPES
@PLANNED
def test_training_is_planned_from_its_first_weights_and_inputs(dtype, strategy):
    result, plans = trained(strategy, 0.5, grown=[0.5], h=1e-3, max_abs_x=3.0, dtype=dtype)
    assert (result, plans) == ("result 1", [make_plan(1e-3, 3.0, 0.5, dtype)])


@DTYPES
@PLANNED
def test_training_is_run_again_for_as_long_as_the_weights_outgrow_the_plan(dtype, strategy):
    result, plans = trained(strategy, 0.5, grown=[8.0, 1.0, 16.0, 16.0], dtype=dtype)
    assert plans == [make_plan(1e-2, 1.0, weight, dtype) for weight in (0.5, 8.0)]  # which covers that of 1.0
    assert result == "result 2"
    result, plans = trained(strategy, 0.5, grown=[8.0, 16.0, 16.0], dtype=dtype)
    assert plans == [make_plan(1e-2, 1.0, weight, dtype) for weight in (0.5, 8.0, 16.0)]
    assert result == "result 3"
    assert len(set(plans)) == 3


@PLANNED
def test_training_keeps_a_plan_that_covers_the_weights_at_the_end(strategy):
    grown = 0.7  # by less than what the plan rounds up to
    assert trained(strategy, 0.6, grown=[grown])[0] == "result 1"
    assert trained(strategy, 4.0, grown=[0.5])[0] == "result 1"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strategy", ["loop", "batched", "closed form"])
def test_training_by_what_needs_no_plan_is_run_once(strategy):
    assert trained(strategy, 0.5, grown=[1e3])[0] == "result 1"
    assert trained(strategy, 0.5, grown=[1e3], h=0.1, max_abs_x=255.0)[0] == "result 1"


def test_training_warns_once_for_each_plan_that_does_not_collocate():
    with pytest.warns(RuntimeWarning, match=r"more than 8 nodes at h = 0\.1 and inputs of up to 255 ") as caught:
        trained("collocated", 0.5, grown=[0.5], h=0.1, max_abs_x=255.0)
    assert len(caught) == 1
    with pytest.warns(RuntimeWarning, match=r"more than 8 nodes at h = 0\.01 and inputs of up to 1 ") as caught:
        _, plans = trained("collocated", 0.5, grown=[1e3, 1e3])
    assert [plan.collocates for plan in plans] == [True, False]
    assert len(caught) == 1


@pytest.mark.filterwarnings("error")
def test_training_by_structured_warns_of_nothing():
    assert trained("structured", 0.5, grown=[0.5], h=0.1, max_abs_x=255.0)[0] == "result 1"
