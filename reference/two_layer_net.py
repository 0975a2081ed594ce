"""The net as pure functions over `Params`, and `TwoLayerNet`, the chapter's class, on any backend.

a1 = x W1 + b1,  z1 = sigmoid(a1),  a2 = z1 W2 + b2,  y = softmax(a2),  loss = -mean_b log(y[b, t_b] + DELTA)
"""

import importlib
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from reference.functions import DELTA, cross_entropy_error, sigmoid, softmax
from reference.validation import check_dtype, check_labels, check_net, check_seed, check_size, check_spread


class Params(NamedTuple):
    """The parameters of one net: shapes (I, H), (H,), (H, O), (O,), all of one dtype; or their gradient."""

    W1: Any
    b1: Any
    W2: Any
    b2: Any


def init(
    input_size: int,
    hidden_size: int,
    output_size: int,
    weight_init_std: float = 0.01,
    *,
    seed: int | None = None,
    dtype: str = "float64",
) -> Params:
    """Return the chapter's initial net: weights from N(0, weight_init_std^2), biases 0.

    The numbers are drawn in float64, so that a seed means the same net, rounded, in float32.
    """
    for name, size in {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}.items():
        check_size(name, size)
    check_spread(weight_init_std)
    check_seed(seed)
    check_dtype(dtype)
    rng = np.random.default_rng(seed)
    drawn = Params(
        W1=weight_init_std * rng.standard_normal((input_size, hidden_size)),
        b1=np.zeros(hidden_size),
        W2=weight_init_std * rng.standard_normal((hidden_size, output_size)),
        b2=np.zeros(output_size),
    )
    return Params(*(p.astype(dtype) for p in drawn))


def predict(params: Params, x: np.ndarray) -> np.ndarray:
    """Return the class probabilities of each sample, (B, O), of the dtype of `params`.

    Raises
    ------
    ValueError
        If shapes do not fit, dtypes differ or something is not finite (so do all functions here).
    """
    check_net(params, x, np.ndarray, largest)
    return softmax(logits(params, x))


def loss(params: Params, x: np.ndarray, t: np.ndarray) -> np.floating:
    """Return the mean cross entropy of the batch; `t` holds class indices (B,) or one-hot rows (B, O)."""
    labels = checked_labels(params, x, t)
    return loss_of_labels(params, x, labels)


def accuracy(params: Params, x: np.ndarray, t: np.ndarray) -> np.floating:
    """Return the share of samples whose most probable class is the right one."""
    labels = checked_labels(params, x, t)
    return (logits(params, x).argmax(axis=1) == labels).mean(dtype=x.dtype)


def gradient(params: Params, x: np.ndarray, t: np.ndarray) -> Params:
    """Return the derivative of the loss in closed form: the yardstick, not a way to train.

    The derivative by the logits is q (y - onehot(t)) / B with q = y_t / (y_t + DELTA), the factor that DELTA brings.
    The right class's y_t - 1 is written -(sum of the others) and z (1 - z) is sigmoid(a) sigmoid(-a): nothing cancels.
    """
    return loss_and_gradient(params, x, checked_labels(params, x, t))[1]


def loss_and_gradient(params: Params, x: np.ndarray, labels: np.ndarray) -> tuple[np.floating, Params]:
    """Return the loss and its closed-form derivative, unchecked, for labels that are class indices."""
    a1 = x @ params.W1 + params.b1  # (B, H)
    z1 = sigmoid(a1)
    y = softmax(z1 @ params.W2 + params.b2)  # (B, O)
    rows = np.arange(len(x))
    y_t = y[rows, labels]  # (B,)
    delta2 = y.copy()
    delta2[rows, labels] = 0
    delta2[rows, labels] = -delta2.sum(axis=1)
    delta2 *= (y_t / (y_t + DELTA) / len(x))[:, None]
    delta1 = (delta2 @ params.W2.T) * z1 * sigmoid(-a1)  # (B, H)
    derivative = Params(x.T @ delta1, delta1.sum(axis=0), z1.T @ delta2, delta2.sum(axis=0))
    return -np.log(y_t + DELTA).mean(), derivative


def checked_labels(params: Params, x: np.ndarray, t: Any) -> np.ndarray:
    """Validate a net, its batch and its labels, and return the labels as class indices (B,)."""
    check_net(params, x, np.ndarray, largest)
    return check_labels(t, len(x), len(params.b2))


def largest(array: np.ndarray) -> float:
    """Return max(|array|), NaN if there is a NaN."""
    return float(max(array.max(), -array.min()))


def logits(params: Params, x: np.ndarray) -> np.ndarray:
    """Return a2, unchecked. One member of `params` may have a leading axis of P perturbed copies: (P, B, O) then."""
    a1 = x @ params.W1 + params.b1[..., None, :]  # (..., B, H)
    return sigmoid(a1) @ params.W2 + params.b2[..., None, :]


def loss_of_labels(params: Params, x: np.ndarray, labels: np.ndarray) -> Any:
    """Return the loss, unchecked, for labels that are class indices; (P,) losses of P perturbed copies."""
    return cross_entropy_error(softmax(logits(params, x)), labels)


class TwoLayerNet:
    """The chapter's class: its constructor, its members, its methods; on NumPy, or on the backend that is asked for.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        I, H and O.
    weight_init_std : float
        Standard deviation of the initial weights.
    seed : int, optional
        Makes the initial weights reproducible. Without it they differ each time.
    backend : str or module
        A name of `ports.names()`, such as "jax", or any module that is a port (ports/protocol.py).
    strategy : str
        How `numerical_gradient` evaluates the differences: "loop" is the chapter's own, "collocated" the fastest.
    h : float
        The step of the differences.

    Attributes
    ----------
    params : dict of str to numpy.ndarray
        'W1', 'b1', 'W2', 'b2'; NumPy arrays on every backend, so that they can be updated in place.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        *,
        seed: int | None = None,
        backend: str | ModuleType = "numpy",
        strategy: str = "collocated",
        h: float = 1e-4,
    ) -> None:
        initial = init(input_size, hidden_size, output_size, weight_init_std, seed=seed)
        self.params: dict[str, np.ndarray] = initial._asdict()
        self._port: Any = _load_port(backend)
        if strategy not in self._port.GRADIENTS:
            raise ValueError(f"`strategy` must be one of {', '.join(self._port.GRADIENTS)}, got {strategy!r}.")
        self._strategy, self._h = strategy, h

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the class probabilities, (B, O)."""
        return self._port.to_numpy(self._port.predict(*self._on_backend(x)))

    def loss(self, x: np.ndarray, t: np.ndarray) -> float:
        """Return the mean cross entropy of the batch."""
        return float(self._port.to_numpy(self._port.loss(*self._on_backend(x), t)))

    def accuracy(self, x: np.ndarray, t: np.ndarray) -> float:
        """Return the share of samples that are predicted right."""
        return float(self._port.to_numpy(self._port.accuracy(*self._on_backend(x), t)))

    def numerical_gradient(self, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
        """Return the central differences of the loss as a dict like `params`."""
        return self._as_dict(self._port.GRADIENTS[self._strategy](*self._on_backend(x), t, h=self._h))

    def gradient(self, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
        """Return the closed-form derivative of the loss as a dict like `params`."""
        return self._as_dict(self._port.gradient(*self._on_backend(x), t))

    def _on_backend(self, x: np.ndarray) -> tuple[Params, Any]:
        """Return parameters and inputs as the backend's own; the chapter's float32 inputs become float64 here."""
        device = "cpu" if "cpu" in self._port.devices() else "auto"
        arrays = (*(self.params[name] for name in Params._fields), x)
        *params, x = (self._port.from_numpy(np.asarray(a), dtype="float64", device=device) for a in arrays)
        return Params(*params), x

    def _as_dict(self, gradient: Params) -> dict[str, np.ndarray]:
        return {name: self._port.to_numpy(g) for name, g in zip(Params._fields, gradient, strict=True)}


def _load_port(backend: str | ModuleType) -> Any:
    # By name and only when asked: the reference itself needs no port, and imports none.
    return importlib.import_module("ports").load(backend) if isinstance(backend, str) else backend
