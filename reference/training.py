"""The chapter's whole training run, 4.5.3, on any port."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference import validation
from reference.datasets import Dataset
from reference.defaults import MEMORY, H
from reference.segments import segment_ends, segment_length
from reference.two_layer_net import Params, max_abs
from reference.validation import SmallHError, dtype_name

MAX_ITERATIONS = 10**9
"""The losses of a run are kept in memory, and in its checkpoint."""
MAX_BATCH = 10**9


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
    resumable : bool
        Whether a run resumed from here ends with the very bits of one that was not interrupted.
    """

    iteration: int
    params: Params
    losses: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    generator: dict[str, Any]
    resumable: bool = True


def begin(params: Params, seed: int = 0) -> Progress:
    """Return the progress of a run that has not begun, from the initial net `params`."""
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
    h: float = H,
    memory: float = MEMORY,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[Progress]:
    """Train on a port as the chapter does, on mini-batches drawn with replacement: the same ones on all ports.

    The run is cut into segments (reference/segments.py), one call of the port's `train_steps` each. Parameters pass
    through NumPy in between, as they do through a file: a run resumed at the end of a segment ends with the very bits
    of one that was never interrupted.

    Parameters
    ----------
    port : module
        A backend, such as `ports.load("jax")`.
    params : Params or Progress
        The initial net (NumPy arrays; their dtype is the one trained in), or the progress to resume from, where
        `seed` is not used.
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
    options = {"strategy": strategy, "learning_rate": learning_rate, "h": h, "memory": memory}
    on_device = _move_to_device(port, data, dtype_name(now.params.W1), device)
    epoch = epoch_length(data, batch)
    ends = segment_ends(now.iteration, iterations, epoch, segment_length(now.params, strategy, batch))
    rng = np.random.Generator(np.random.PCG64())
    rng.bit_generator.state = now.generator
    losses = np.concatenate((now.losses, np.empty(iterations - now.iteration)))
    table = now.accuracies[now.accuracies[:, 0] % epoch == 0]  # without the end of a shorter run
    evaluations, net = len(table), now.params
    table = np.concatenate((table, np.empty((iterations // epoch + 2, 3))))
    for end, resumable in chain([(now.iteration, True)], ends):
        if end > now.iteration:
            batches = rng.integers(0, len(data.x_train), (end - now.iteration, batch))
            try:
                net, losses[now.iteration : end] = on_device.train(net, batches, options)
                _check_finite(losses[:end], now.iteration, net, learning_rate)
                _check_h_moves(strategy, h, net)
            except SmallHError as error:  # at the beginning h moved all of them
                what = f"`h` no longer moves the largest parameter after iteration {now.iteration}"
                raise _diverged(what, learning_rate) from error
        if (end % epoch == 0 or end == iterations) and end not in table[evaluations - 1 : evaluations, 0]:
            table[evaluations] = end, *on_device.accuracies(net)
            evaluations += 1
        now = Progress(end, net, losses[:end], table[:evaluations], dict(rng.bit_generator.state), resumable)
        yield now


def epoch_length(data: Dataset, batch: int) -> int:
    """Return the iterations of an epoch."""
    return max(len(data.x_train) // batch, 1)


class _OnDevice(NamedTuple):
    """A port with the data on its device."""

    port: Any
    copy: Callable[[np.ndarray], Any]
    train_set: tuple[Any, np.ndarray]
    test_set: tuple[Any, np.ndarray]

    def train(self, net: Params, batches: np.ndarray, options: dict[str, Any]) -> tuple[Params, np.ndarray]:
        """Take a step on each batch; return the net and the losses."""
        with np.errstate(over="ignore", invalid="ignore"):  # the result is checked
            trained, losses = self.port.train_steps(self._net(net), *self.train_set, batches, **options)
        return Params(*map(self.port.to_numpy, trained)), self.port.to_numpy(losses)

    def accuracies(self, net: Params) -> tuple[float, float]:
        """Compute the accuracies on the training set and on the test set."""
        params = self._net(net)
        with np.errstate(over="ignore", invalid="ignore"):  # no class is most probable then
            in_training, in_test = (self.port.accuracy(params, *part) for part in (self.train_set, self.test_set))
        return float(self.port.to_numpy(in_training)), float(self.port.to_numpy(in_test))

    def _net(self, net: Params) -> Params:
        return Params(*map(self.copy, net))


def _move_to_device(port: Any, data: Dataset, dtype: str, device: str) -> _OnDevice:
    copy = partial(port.from_numpy, dtype=dtype, device=validation.check_device(device, port.devices()))
    return _OnDevice(port, copy, (copy(data.x_train), data.t_train), (copy(data.x_test), data.t_test))


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
    if iterations > MAX_ITERATIONS:
        raise ValueError(f"`iterations` must be at most {MAX_ITERATIONS:,}, got {iterations}: all losses are kept.")
    if batch < 1:
        raise ValueError(f"`batch` must be at least 1, got {batch}.")
    if batch > MAX_BATCH:
        raise ValueError(f"`batch` must be at most {MAX_BATCH:,}, got {batch}.")
    h, dtype = validation.check_h(h), dtype_name(now.params.W1)
    validation.check_memory(memory)
    validation.check_learning_rate(learning_rate, dtype)
    _check_h_moves(strategy, h, now.params)


def _check_h_moves(strategy: str, h: float, net: Params) -> None:
    """Raise SmallHError if the strategy adds h to the parameters and it does not move the largest of them."""
    if strategy in ("loop", "batched"):
        validation.check_h_moves(h, dict(zip(Params._fields, map(max_abs, net), strict=True)), dtype_name(net.W1))


def _check_finite(losses: np.ndarray, start: int, net: Params, learning_rate: float) -> None:
    """Raise DivergedError if one of the losses since `start`, or the net after them, is not finite."""
    wrong = np.flatnonzero(~np.isfinite(losses[start:]))
    if len(wrong) == 0 and all(math.isfinite(max_abs(p)) for p in net):
        return
    iteration = start + int(wrong[0]) + 1 if len(wrong) else len(losses)
    what = "the loss" if len(wrong) else "a parameter"
    raise _diverged(f"{what} is no longer finite at iteration {iteration}", learning_rate)


def _diverged(what: str, learning_rate: float) -> DivergedError:
    return DivergedError(
        f"Training diverged: {what}; the likely cause is the learning rate, {learning_rate:g}: try a smaller one."
    )
