"""What only PyTorch has: its devices, labels that record a gradient, and weights that it watches without waiting."""

from typing import Any

import numpy as np
import pytest

from comparison.conformance.problems import loaded
from reference.two_layer_net import Params, init


@pytest.fixture(scope="module")
def port() -> Any:
    return loaded("torch")


@pytest.mark.parametrize(
    ("gpus", "mps", "named"),
    [
        (0, False, ("cpu",)),
        (1, False, ("cuda", "cpu")),
        (3, False, ("cuda", "cuda:1", "cuda:2", "cpu")),
        (0, True, ("mps", "cpu")),
    ],
)
def test_devices_are_named_the_default_one_first(
    port: Any, gpus: int, mps: bool, named: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert port.devices() == named


def test_each_part_of_a_result_is_waited_for_on_its_device(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def on(device: str) -> Any:
        kind = type("Elsewhere", (torch.Tensor,), {"device": property(lambda self: torch.device(device))})
        return torch.zeros(1).as_subclass(kind)

    waited: list[Any] = []
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    monkeypatch.setattr("torch.mps.synchronize", lambda: waited.append("mps"))
    result = (on("cuda:0"), [on("cpu"), on("mps"), 1.0], on("cuda:1"))
    assert port.synchronize(result) is result
    assert waited == [torch.device("cuda:0"), "mps", torch.device("cuda:1")]


def past_the_nodes(port: Any) -> tuple[Any, ...]:
    """Return a net, inputs and labels for which `collocated` needs too many nodes at a step of 0.3."""
    rng = np.random.default_rng(0)
    arrays = (*init(3, 4, 2, 1.0, seed=0), 255 * rng.random((5, 3)))
    *params, x = (port.from_numpy(a, dtype="float64", device="cpu") for a in arrays)
    return Params(*params), x, np.array([0, 1, 1, 0, 1])


BATCHES = np.array([[0, 1], [2, 4]])


def test_the_warning_points_at_the_caller(port: Any) -> None:
    net, options = past_the_nodes(port), {"strategy": "collocated", "learning_rate": 1e-6}
    with pytest.warns(RuntimeWarning, match="`structured` takes over") as once:
        port.GRADIENTS["collocated"](*net, h=0.3)
    with pytest.warns(RuntimeWarning, match="`structured` takes over") as in_training:
        port.train_steps(*net, BATCHES, h=0.3, **options)
    assert [warning.filename for warning in (*once, *in_training)] == [__file__] * 2


def test_training_by_structured_needs_no_nodes(port: Any) -> None:
    """Nor does it warn of them; where `collocated` hands over it is the same descent."""
    net = past_the_nodes(port)
    by_structured = port.train_steps(*net, BATCHES, strategy="structured", learning_rate=1e-3, h=0.3)
    with pytest.warns(RuntimeWarning, match="`structured` takes over"):
        by_collocated = port.train_steps(*net, BATCHES, strategy="collocated", learning_rate=1e-3, h=0.3)
    for got, expected in zip((*by_collocated[0], by_collocated[1]), (*by_structured[0], by_structured[1]), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("strategy", "other"),
    [
        ("loop", "collocated_gradient"),
        ("batched", "collocated_gradient"),
        ("structured", "collocated_gradient"),
        ("collocated", "structured_gradient"),
        ("collocated", "probabilities_of_labels"),  # a forward pass of its own
    ],
)
def test_training_takes_the_strategy_of_that_name(
    port: Any, strategy: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their numbers are the same, their time is not."""
    for module in (port.descent, port.numerical_gradient):
        monkeypatch.setattr(module, other, None, raising=False)
    port.train_steps(*past_the_nodes(port), BATCHES, strategy=strategy, learning_rate=1e-6)


def test_a_descent_tells_the_largest_weight_before_a_step(port: Any) -> None:
    """Of the steps before which all weights were finite; 0 where nobody asks."""
    params, x, t = past_the_nodes(port)
    net = params, x, port.from_numpy(t, dtype="float64", device="cpu").long()
    slope = Params(*(0 * p for p in params))._replace(W2=port.from_numpy(np.eye(4, 2), dtype="float64", device="cpu"))
    batches = net[2].new_zeros(5, 2)

    def loss_and_gradient(*_: Any) -> Any:
        return x.new_ones(2, 1), slope

    largest = float(abs(params.W2).max())
    _, met = port.descent.descend(loss_and_gradient, *net, batches, 100.0, True)
    assert met == pytest.approx(400 - float(min(params.W2[0, 0], params.W2[1, 1])))
    _, met = port.descent.descend(loss_and_gradient, *net, batches, 1e308, True)  # -1e308, then -inf
    assert met == 1e308
    slope = slope._replace(W2=slope.W2 * np.nan)
    assert port.descent.descend(loss_and_gradient, *net, batches, 100.0, True)[1] == largest
    assert port.descent.descend(loss_and_gradient, *net, batches, 100.0, False)[1] == 0


def test_labels_may_be_a_tensor_that_records_a_gradient(port: Any) -> None:
    """As one may come out of somebody's pipeline; NumPy makes no array of it by itself."""
    import torch

    params, x, t = init(2, 3, 2, seed=0), np.eye(2), torch.eye(2, dtype=torch.float64, requires_grad=True)
    net = Params(*(port.from_numpy(p, dtype="float64", device="cpu") for p in params))
    inputs = port.from_numpy(x, dtype="float64", device="cpu")
    assert port.loss(net, inputs, t) == port.loss(net, inputs, np.arange(2))
