"""Mini-batch gradient descent, the chapter's 4.5.2, and its whole run, 4.5.3, on any port."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference import numerical_gradient as differences
from reference.datasets import Dataset
from reference.segments import borders, segment_length
from reference.two_layer_net import Params, largest, loss_and_gradient, loss_of_labels
from reference.two_layer_net import gradient as closed_form
from reference.validation import (
    MEMORY,
    StepError,
    check_batches,
    check_device,
    check_gradient,
    check_labels,
    check_learning_rate,
    check_memory,
    check_net,
    check_step,
    check_step_moves,
    dtype_name,
)

TRAINABLE = (closed_form, *differences.GRADIENTS.values())
"""What `train_steps` can follow."""


class DivergedError(ArithmeticError):
    """A descent that left the range of numbers; the message has the iteration and the likely cause."""


class Progress(NamedTuple):
    """How far a run has come; all of it on the host.

    Attributes
    ----------
    iteration : int
        Steps taken.
    params : Params
        The net after them, NumPy arrays.
    losses : (iteration,) float64 array
        The loss of each mini-batch before its step.
    accuracies : (A, 3) float64 array
        For each epoch, from 0 for the initial net, and for the end: iteration, accuracy in training, in the test.
    generator : dict
        The state of the generator that draws the mini-batches.
    border : bool
        Whether a run that goes on from here is the very run that it would have been.
    """

    iteration: int
    params: Params
    losses: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    generator: dict[str, Any]
    border: bool = True


def begin(params: Params, seed: int = 0) -> Progress:
    """Return the beginning of a run from the initial net `params`."""
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, got {seed}.")
    return Progress(0, params, np.empty(0), np.empty((0, 3)), dict(np.random.PCG64(seed).state))


def train(
    port: Any,
    params: Params | Progress,
    data: Dataset,
    *,
    strategy: str = "collocated",
    iterations: int = 10_000,
    batch: int = 100,
    learning_rate: float = 0.1,
    h: float = 1e-4,
    memory: float = MEMORY,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[Progress]:
    """Train on a port as the chapter does, on mini-batches drawn with replacement: the same ones on all ports.

    The run is cut into segments (reference/segments.py), one call of the port's `train_steps` each. Parameters pass
    through NumPy in between, as they do through a file: a run that goes on from a border ends with the very bits of
    one that was never interrupted.

    Parameters
    ----------
    port : module
        A backend, such as `ports.load("jax")`.
    params : Params or Progress
        The initial net (NumPy arrays; their dtype is the one trained in), or where to go on from; `seed` is not used
        then.
    data : Dataset
        The training and the test set.
    strategy : str
        A name of the port's GRADIENTS.
    iterations : int
        Steps in all, those already taken included.
    batch : int
        B.
    learning_rate, h, memory
        As in `train_steps`.
    seed : int
        Of the generator that draws the mini-batches.
    device : str
        One of the port's devices; "auto" takes the first.

    Yields
    ------
    Progress
        At the beginning, then after each segment: at least once an epoch of max(N // B, 1) iterations.

    Raises
    ------
    ValueError
        If an argument breaks a rule: on the first `next`, before anything is computed.
    DivergedError
        If a loss or a parameter is no longer finite, or a parameter is so large that `h` no longer moves it.
    """
    now = params if isinstance(params, Progress) else begin(params, seed)
    check_run(port, now, strategy, iterations, batch, learning_rate, h, memory)
    steps = partial(
        port.train_steps, gradient=port.GRADIENTS[strategy], learning_rate=learning_rate, h=h, memory=memory
    )
    placed = _place(port, data, dtype_name(now.params.W1), device)
    epoch = epoch_length(data, batch)
    ends = borders(now.iteration, iterations, epoch, segment_length(now.params, strategy, batch))
    draw = np.random.Generator(np.random.PCG64())
    draw.bit_generator.state = now.generator
    losses = np.concatenate((now.losses, np.empty(iterations - now.iteration)))
    table = now.accuracies[now.accuracies[:, 0] % epoch == 0]  # without the end of a shorter run
    shown, table, net = len(table), np.concatenate((table, np.empty((iterations // epoch + 2, 3)))), now.params
    for end, border in chain([(now.iteration, True)], ends):
        if end > now.iteration:
            batches = draw.integers(0, len(data.x_train), (end - now.iteration, batch))
            try:
                net, losses[now.iteration : end] = placed.train(steps, net, batches)
                _check_finite(losses[:end], now.iteration, net, learning_rate)
                _check_moves(strategy, h, net)
            except StepError as error:  # at the beginning it moved them all
                what = f"`h` no longer moves the largest parameter after iteration {now.iteration}"
                raise _diverged(what, learning_rate) from error
        if (end % epoch == 0 or end == iterations) and end not in table[shown - 1 : shown, 0]:
            table[shown] = end, *placed.accuracies(net)
            shown += 1
        now = Progress(end, net, losses[:end], table[:shown], dict(draw.bit_generator.state), border)
        yield now


def epoch_length(data: Dataset, batch: int) -> int:
    """Return the iterations of an epoch."""
    return max(len(data.x_train) // batch, 1)


class _Placed(NamedTuple):
    """A port with the data on its device."""

    port: Any
    put: Callable[[np.ndarray], Any]
    train_set: tuple[Any, np.ndarray]
    test_set: tuple[Any, np.ndarray]

    def train(
        self, steps: Callable[..., tuple[Params, Any]], net: Params, batches: np.ndarray
    ) -> tuple[Params, np.ndarray]:
        """Return the net after `steps` on the batches, and their losses."""
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
            trained, losses = steps(self._on_device(net), *self.train_set, batches)
        return Params(*map(self.port.to_numpy, trained)), self.port.to_numpy(losses)

    def accuracies(self, net: Params) -> tuple[float, float]:
        """Return the accuracy in training and in the test."""
        on_device = self._on_device(net)
        with np.errstate(over="ignore", invalid="ignore"):  # no class is most probable then
            in_training, in_test = (self.port.accuracy(on_device, *part) for part in (self.train_set, self.test_set))
        return float(self.port.to_numpy(in_training)), float(self.port.to_numpy(in_test))

    def _on_device(self, net: Params) -> Params:
        return Params(*map(self.put, net))


def _place(port: Any, data: Dataset, dtype: str, device: str) -> _Placed:
    put = partial(port.from_numpy, dtype=dtype, device=check_device(device, port.devices()))
    return _Placed(port, put, (put(data.x_train), data.t_train), (put(data.x_test), data.t_test))


def check_run(
    port: Any,
    now: Progress,
    strategy: str,
    iterations: int,
    batch: int,
    learning_rate: float,
    h: float,
    memory: float,
) -> None:
    """Raise ValueError if `train` could not run with these arguments."""
    if strategy not in port.GRADIENTS:
        raise ValueError(f"`strategy` must be one of {', '.join(port.GRADIENTS)}, got {strategy!r}.")
    if iterations < max(1, now.iteration):
        raise ValueError(f"`iterations` must be at least {max(1, now.iteration)}, got {iterations}.")
    if batch < 1:
        raise ValueError(f"`batch` must be at least 1, got {batch}.")
    h, dtype = check_step(h), dtype_name(now.params.W1)
    check_memory(memory)
    check_learning_rate(learning_rate, dtype)
    _check_moves(strategy, h, now.params)


def _check_moves(strategy: str, h: float, net: Params) -> None:
    """Raise StepError if the strategy adds a step to the parameters that does not move the largest of them."""
    if strategy in ("loop", "batched"):
        check_step_moves(h, dict(zip(Params._fields, map(largest, net), strict=True)), dtype_name(net.W1))


def _check_finite(losses: np.ndarray, start: int, net: Params, learning_rate: float) -> None:
    """Raise DivergedError if one of the losses since `start`, or the net after them, is not finite."""
    wrong = np.flatnonzero(~np.isfinite(losses[start:]))
    if len(wrong) == 0 and all(math.isfinite(largest(p)) for p in net):
        return
    iteration = start + int(wrong[0]) + 1 if len(wrong) else len(losses)
    what = "the loss" if len(wrong) else "a parameter"
    raise _diverged(f"{what} is no longer finite at iteration {iteration}", learning_rate)


def _diverged(what: str, learning_rate: float) -> DivergedError:
    return DivergedError(
        f"Training diverged: {what}; the likely cause is the learning rate, {learning_rate:g}: try a smaller one."
    )


def train_steps(
    params: Params,
    x: np.ndarray,
    t: np.ndarray,
    batches: np.ndarray,
    *,
    gradient: Callable[..., Params],
    learning_rate: float,
    h: float = 1e-4,
    memory: float = MEMORY,
) -> tuple[Params, np.ndarray]:
    """Take K steps of gradient descent, one for each mini-batch.

    Parameters
    ----------
    params : Params
        The initial net; left as it is.
    x : (N, I) array
        All inputs.
    t : (N,) or (N, O) array
        All labels.
    batches : (K, B) int array
        The samples of each mini-batch, as indices into x and t.
    gradient : callable
        The closed form `gradient`, or one of `GRADIENTS`.
    learning_rate : float
        The step of the descent.
    h : float
        The step of the differences.
    memory : float
        Bytes that one gradient may take.

    Returns
    -------
    Params
        The net after the last step.
    (K,) array
        The loss of each mini-batch before its step.
    """
    h = check_step(h)
    check_memory(memory)
    sizes = check_net(params, x, np.ndarray, largest)
    learning_rate = check_learning_rate(learning_rate, dtype_name(x))
    labels, batches = check_labels(t, len(x), len(params.b2)), check_batches(batches, len(x))
    check_gradient(gradient, TRAINABLE)
    if gradient in (differences.loop, differences.batched):
        check_step_moves(h, sizes, str(x.dtype))
    step = _loss_and(gradient, h, memory, sizes["x"])
    losses = np.empty(len(batches), x.dtype)
    for k, batch in enumerate(batches):
        if not math.isfinite(largest(params.W2)):  # no number of nodes could be planned
            losses[k:] = np.nan
            break
        losses[k], slope = step(params, x[batch], labels[batch])
        params = Params(*(p - learning_rate * g for p, g in zip(params, slope, strict=True)))
    return params, losses


def _loss_and(gradient: Callable[..., Params], h: float, memory: float, largest_input: float) -> Callable[..., Any]:
    """Return the function of (params, x, labels) that gives the loss and that gradient from one forward pass."""
    if gradient is closed_form:
        return loss_and_gradient
    if gradient is differences.structured:
        return partial(differences.structured_step, h=h, memory=memory, largest_input=largest_input)
    if gradient is differences.collocated:
        return partial(differences.collocated_step, h=h, memory=memory, largest_input=largest_input)
    return lambda *net: (loss_of_labels(*net), gradient(*net, h=h, memory=memory))
