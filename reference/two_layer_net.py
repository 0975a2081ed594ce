"""The net as pure functions of `Params`: predictions, loss, accuracy, and the derivative in closed form.

a1 = x W1 + b1,  z1 = sigmoid(a1),  a2 = z1 W2 + b2,  y = softmax(a2),  loss = -mean_b log(y[b, t_b] + DELTA)
"""

from typing import Any, NamedTuple

import numpy as np

from reference import validation
from reference.defaults import MEMORY
from reference.functions import DELTA, cross_entropy_error, sigmoid, sigmoids, softmax
from reference.validation import Magnitudes


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
    dtype: Any = "float64",
) -> Params:
    """Draw the chapter's initial net: weights from N(0, weight_init_std^2), biases 0.

    The numbers are drawn in float64, so that a seed means the same net, rounded, in float32.
    """
    for name, size in {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}.items():
        validation.check_size(name, size)
    validation.check_weight_init_std(weight_init_std)
    validation.check_seed(seed)
    dtype = validation.check_dtype(dtype)
    rng = np.random.default_rng(seed)
    drawn = Params(
        W1=weight_init_std * rng.standard_normal((input_size, hidden_size)),
        b1=np.zeros(hidden_size),
        W2=weight_init_std * rng.standard_normal((hidden_size, output_size)),
        b2=np.zeros(output_size),
    )
    return Params(*(p.astype(dtype) for p in drawn))


def predict(params: Params, x: np.ndarray) -> np.ndarray:
    """Compute the class probabilities of each sample, (B, O), of the dtype of `params`.

    Raises
    ------
    ValueError
        If shapes do not fit, dtypes differ or something is not finite (so do all functions here).
    """
    validation.check_net(params, x, np.ndarray, max_abs)
    return softmax(logits(params, x))


def loss(params: Params, x: np.ndarray, t: np.ndarray) -> np.floating:
    """Compute the mean cross entropy of the batch; `t` holds class indices (B,) or one-hot rows (B, O)."""
    return loss_of_labels(params, x, check_batch(params, x, t)[0])


def accuracy(params: Params, x: np.ndarray, t: np.ndarray) -> np.floating:
    """Compute the share of samples whose most probable class is the right one."""
    labels, _ = check_batch(params, x, t)
    return (logits(params, x).argmax(axis=1) == labels).mean(dtype=x.dtype)


def gradient(params: Params, x: np.ndarray, t: np.ndarray) -> Params:
    """Compute the derivative of the loss in closed form: the yardstick, not a way to train."""
    return closed_form(params, x, check_batch(params, x, t)[0])[1]


def check_batch(params: Params, x: np.ndarray, t: np.ndarray, memory: float = MEMORY) -> tuple[np.ndarray, Magnitudes]:
    """Check a net, its batch and the memory budget; return the labels as class indices (B,), and the magnitudes."""
    validation.check_memory(memory)
    magnitudes = validation.check_net(params, x, np.ndarray, max_abs)
    return validation.check_labels(t, len(x), len(params.b2)), magnitudes


def max_abs(array: np.ndarray) -> float:
    """Return max|array|, NaN if there is a NaN."""
    return float(max(array.max(), -array.min()))


def logits(params: Params, x: np.ndarray) -> np.ndarray:
    """Compute a2, (B, O). One member of `params` may have a leading axis of P perturbed copies: (P, B, O) then."""
    a1 = x @ params.W1 + params.b1[..., None, :]  # (..., B, H)
    return sigmoid(a1) @ params.W2 + params.b2[..., None, :]


def loss_of_labels(params: Params, x: np.ndarray, labels: np.ndarray) -> Any:
    """Compute the loss for labels that are class indices; (P,) losses of P perturbed copies."""
    return cross_entropy_error(softmax(logits(params, x)), labels)


def closed_form(params: Params, x: np.ndarray, labels: np.ndarray) -> tuple[np.floating, Params]:
    """Compute the loss and its derivative for labels that are class indices.

    The derivative by the logits is q (y - onehot(t)) / B with q = y_t / (y_t + DELTA), the factor that DELTA brings.
    The right class's y_t - 1 is written -(sum of the others) and z (1 - z) is sigmoid(a) sigmoid(-a): nothing cancels.
    """
    z1, one_minus_z1 = sigmoids(x @ params.W1 + params.b1)  # (B, H)
    delta2 = softmax(z1 @ params.W2 + params.b2)  # (B, O), y
    rows = np.arange(len(x))
    y_t = delta2[rows, labels]  # (B,)
    delta2[rows, labels] = 0
    delta2[rows, labels] = -delta2.sum(axis=1)
    delta2 *= (y_t / (y_t + DELTA) / len(x))[:, None]
    delta1 = (delta2 @ params.W2.T) * z1 * one_minus_z1  # (B, H)
    derivative = Params(x.T @ delta1, delta1.sum(axis=0), z1.T @ delta2, delta2.sum(axis=0))
    return -np.log(y_t + DELTA).mean(), derivative
