"""The chapter's class `TwoLayerNet` in NumPy: its constructor, its members, its methods."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from reference import two_layer_net
from reference.defaults import H
from reference.numerical_gradient import GRADIENTS
from reference.surroundings import isolated
from reference.two_layer_net import Params, init
from reference.validation import as_array, check_numbers, shown


class TwoLayerNet:
    """The net of chapter 4.5.1, which differentiates its loss numerically.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        I, H and O.
    weight_init_std : float
        Standard deviation of the initial weights.
    seed : int, optional
        Makes the initial weights reproducible. By default they differ each time.
    strategy : str
        How `numerical_gradient` evaluates the differences: "loop" is the chapter's own, "collocated" the fastest.
    h : float
        The step of the differences, in [1e-20, 1].

    Attributes
    ----------
    params : dict of str to numpy.ndarray
        'W1', 'b1', 'W2', 'b2', float64; they can be updated in place.

    Raises
    ------
    ValueError
        If an argument breaks a rule; so do the methods.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        *,
        seed: int | None = None,
        strategy: str = "collocated",
        h: float = H,
    ) -> None:
        initial = init(input_size, hidden_size, output_size, weight_init_std, seed=seed)
        self.params: dict[str, np.ndarray] = initial._asdict()
        self.strategy, self.h = strategy, h
        self._differences()

    @property
    def _gradients(self) -> dict[str, Callable[..., Params]]:
        return GRADIENTS

    def _differences(self) -> Callable[..., Params]:
        """Return the function of the strategy, which is an attribute that may have been assigned."""
        if not isinstance(self.strategy, str) or self.strategy not in self._gradients:
            known = ", ".join(self._gradients)
            raise ValueError(f"`strategy` must be one of {known}, got {shown(self.strategy)}.")
        return self._gradients[self.strategy]

    @isolated
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Compute the class probabilities, (B, O); (O,) of a single sample (I,)."""
        y = two_layer_net.predict(*self._net(x))
        return y[0] if np.ndim(x) == 1 else y

    @isolated
    def loss(self, x: np.ndarray, t: np.ndarray) -> float:
        """Compute the mean cross entropy of the batch."""
        return float(two_layer_net.loss(*self._net(x), batch_labels(x, t)))

    @isolated
    def accuracy(self, x: np.ndarray, t: np.ndarray) -> float:
        """Compute the share of samples that are predicted right."""
        return float(two_layer_net.accuracy(*self._net(x), batch_labels(x, t)))

    @isolated
    def numerical_gradient(self, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the central differences of the loss, as a dict like `params`."""
        return self._differences()(*self._net(x), batch_labels(x, t), h=self.h)._asdict()

    @isolated
    def gradient(self, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the closed-form derivative of the loss, as a dict like `params`."""
        return two_layer_net.gradient(*self._net(x), batch_labels(x, t))._asdict()

    def _net(self, x: Any) -> tuple[Params, np.ndarray]:
        """Copy parameters and inputs in float64; the book's inputs are float32."""
        *params, x = checked_arrays(self.params, x)
        return Params(*(np.array(p, np.float64) for p in params)), np.array(x, np.float64)


def checked_arrays(params: dict[str, np.ndarray], x: Any) -> list[np.ndarray]:
    """Check that parameters and inputs are numbers; a single sample (I,) becomes a batch of one."""
    if not isinstance(params, Mapping) or not set(Params._fields) <= params.keys():
        got = shown(list(params)) if isinstance(params, Mapping) else f"a {type(params).__name__}"
        raise ValueError(f"`params` must be a dict of {', '.join(Params._fields)}, got {got}.")
    named = {name: params[name] for name in Params._fields} | {"x": x}
    *members, x = (check_numbers(array, name) for name, array in named.items())
    return [*members, x[None] if x.ndim == 1 else x]


def batch_labels(x: Any, t: Any) -> Any:
    """Return the labels of a batch; the label or the one-hot row of a single sample (I,) becomes a batch of one."""
    single = np.ndim(x) == 1 and np.ndim(t) < 2 and np.shape(t) != (1,)
    return as_array("t", t)[None] if single else t
