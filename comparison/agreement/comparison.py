"""Compare a port with the float64 reference: the verdict on each quantity of a problem."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.truth import Truth
from ports.protocol import Port
from reference.defaults import CLOSED_FORM, H
from reference.two_layer_net import Params

FULL_COST = 2e9
"""Floating-point operations of `loop` up to which all entries are checked: some tenths of a second."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The verdict on one quantity of one backend; the entry shown is the worst, by gap / bound."""

    backend: str
    strategy: str | None  # None where it does not matter
    dtype: str
    device: str
    quantity: str
    h: float | None
    gap: float | None  # None where shapes or dtypes differ, or an argument was changed
    bound: float | None
    agrees: bool
    worst_index: tuple[int, ...] | None
    got: float | str
    expected: float | str
    checked: int
    entries: int
    problem: str = "data"

    @property
    def ratio(self) -> float:
        """Gap / bound; infinite where they can't be compared."""
        if self.gap is None or not self.bound:
            return 0.0 if self.gap == 0 else math.inf
        return self.gap / self.bound


class Subject(NamedTuple):
    """What is compared: a port by its name, in one dtype on one device."""

    name: str
    port: Port
    dtype: str
    device: str
    source: str = ""  # the argument of `ports.load`, where it is not the name


class Arguments(NamedTuple):
    """A problem as a port is given it."""

    params: Params  # the port's own arrays
    x: Any
    t: Any  # labels of any kind, on the host


def check_forward(
    subject: Subject, problem: Problem, *, arguments: Arguments | None = None, truth: Truth | None = None
) -> Iterator[Agreement]:
    """Compare predictions, loss and accuracy; `arguments` are by default new arrays."""
    port, truth = subject.port, truth or Truth(problem, subject.dtype)
    params, x, t = arguments or new_arguments(subject, problem)
    calls = (("predictions", port.predict, ()), ("loss", port.loss, (t,)), ("accuracy", port.accuracy, (t,)))
    for quantity, function, labels in calls:
        got = port.to_numpy(function(params, x, *labels))
        yield compare(subject, quantity, got, *truth.forward[quantity])


def check_gradient(
    subject: Subject,
    problem: Problem,
    strategy: str | None,
    h: float,
    *,
    arguments: Arguments | None = None,
    truth: Truth | None = None,
    entries: Params | None = None,
    **options: Any,
) -> Iterator[Agreement]:
    """Compare the four members of a gradient.

    Parameters
    ----------
    subject : Subject
    problem : Problem
    strategy : str or None
        A name of the port's GRADIENTS; None for the closed form.
    h : float
        The step. The default one is left out of the call.
    arguments : Arguments, optional
        The problem on the port; by default new arrays.
    truth : Truth, optional
        Of the problem in the subject's dtype at `h`, where several gradients share it.
    entries : Params, optional
        Flat indices of the entries that `loop` or `batched` is to be checked at.
    **options
        Passed on to the port's gradient.
    """
    port, truth = subject.port, truth or Truth(problem, subject.dtype, h)
    params, x, t = arguments or new_arguments(subject, problem)
    asked = None if entries is None else Params(*map(np.copy, entries))
    if strategy is None:
        got, expected = port.gradient(params, x, t), truth.derivative
    else:
        sampled = {} if entries is None else {"entries": entries}
        got = port.GRADIENTS[strategy](params, x, t, **h_option(h), **sampled, **options)
        expected = truth.differences
    bounds = truth.bounds(strategy)
    changed = changed_argument(subject, problem, params, x, t)
    if entries is not None and asked is not None and not all(map(np.array_equal, entries, asked)):
        entries, changed = asked, "entries"
    for name, g, e, bound in zip(Params._fields, got, expected, bounds, strict=True):
        size = e.size
        if entries is not None:
            at = getattr(entries, name)
            e, bound = e.ravel()[at], bound.ravel()[at]
        row = compare(
            subject, name, port.to_numpy(g), e, bound, strategy=strategy or CLOSED_FORM, h=float(h), size=size
        )
        yield refuse_change(row, changed)


def compare(
    subject: Subject,
    quantity: str,
    got: np.ndarray,
    expected: Any,
    bound: Any,
    *,
    strategy: str | None = None,
    h: float | None = None,
    size: int | None = None,
) -> Agreement:
    """Compare one quantity: shape and dtype first, then values. NaN never agrees."""
    expected, bound = np.asarray(expected), np.broadcast_to(bound, np.shape(expected))
    checked = expected.size
    row = Agreement(
        backend=subject.name,
        strategy=strategy,
        dtype=subject.dtype,
        device=subject.device,
        quantity=quantity,
        h=h if strategy != CLOSED_FORM else None,
        gap=0.0,
        bound=0.0,
        agrees=True,
        worst_index=None,
        got="",
        expected="",
        checked=checked,
        entries=checked if size is None else size,
    )
    forms = f"{got.dtype} {got.shape}", f"{subject.dtype} {expected.shape}"
    if forms[0] != forms[1]:
        return _mismatch(row, *forms)
    return _worst(row, got.astype(np.float64), expected, bound) if checked else row


def _mismatch(row: Agreement, got: str, expected: str) -> Agreement:
    return replace(row, gap=None, bound=None, agrees=False, worst_index=None, got=got, expected=expected)


def _worst(row: Agreement, got: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> Agreement:
    gaps = np.abs(got - expected)
    ratios = np.where(np.isfinite(gaps), gaps, np.inf) / bound
    flat = ratios.argmax() if ratios.any() else bound.argmax()
    worst = tuple(int(i) for i in np.unravel_index(flat, ratios.shape))
    gap, limit, value = float(gaps[worst]), float(bound[worst]), float(got[worst])
    if not math.isfinite(gap):
        return replace(_mismatch(row, str(value), str(float(expected[worst]))), worst_index=worst)
    return replace(
        row, gap=gap, bound=limit, agrees=gap <= limit, worst_index=worst, got=value, expected=float(expected[worst])
    )


def on_device(subject: Subject, problem: Problem) -> tuple[Params, Any]:
    """Copy the parameters and inputs to the subject's own arrays."""
    arrays = (a.copy() for a in (*problem.params, problem.x))  # a port that keeps them cannot change the problem
    *params, x = (subject.port.from_numpy(a, dtype=subject.dtype, device=subject.device) for a in arrays)
    return Params(*params), x


def new_arguments(subject: Subject, problem: Problem) -> Arguments:
    """Copy the problem for the subject, its labels as they are."""
    return Arguments(*on_device(subject, problem), problem.t.copy())


def h_option(h: float) -> dict[str, float]:
    """Return the keyword argument for h: none for the default step, so that a port's own default is compared too."""
    return {} if h == H else {"h": h}


def changed_argument(subject: Subject, problem: Problem, params: Params, x: Any, t: Any) -> str | None:
    """Return the name of an argument whose bits a call has changed, or None."""
    named = {**params._asdict(), "x": x}
    before = {**problem.params._asdict(), "x": problem.x}
    for name, array in named.items():
        if not np.array_equal(subject.port.to_numpy(array), before[name].astype(subject.dtype)):
            return name
    labels = np.asarray(t)
    return None if np.array_equal(labels.argmax(axis=1) if labels.ndim == 2 else labels, problem.t) else "t"


def refuse_change(row: Agreement, changed: str | None) -> Agreement:
    """Turn the row into a disagreement if the call changed an argument."""
    return _mismatch(row, f"computed by a call that changed `{changed}`", "no change") if changed else row


def sample_entries(params: Params, samples: int, seed: int) -> Params | None:
    """Draw a random sample of entries that `loop` can be checked at, or return None where it can be checked at all.

    The larger a member, the more of it is left out; 100 of its entries stay at least.
    """
    operations = 4 * samples * (params.W1.size + params.W2.size)  # of one entry: two forward passes
    share = FULL_COST / operations / sum(p.size for p in params)
    if share >= 1:
        return None
    rng = np.random.default_rng(seed)
    sizes = (min(p.size, max(100, int(share * p.size))) for p in params)
    return Params(*(np.sort(rng.choice(p.size, size, replace=False)) for p, size in zip(params, sizes, strict=True)))


def random_problem(
    x: np.ndarray, t: np.ndarray, *, hidden: int, samples: int, seed: int, outputs: int | None = None
) -> Problem:
    """Draw a net, and a mini-batch from (x, t), that leave no part of a port idle.

    The chapter's initial net would: its biases are 0 and its hidden units all near 1/2. By default there is an
    output for each class up to the largest label.
    """
    if not 1 <= samples <= len(x):
        raise ValueError(f"`batch` must be from 1 to {len(x)}, the number of samples, got {samples}.")
    if hidden < 1:
        raise ValueError(f"`hidden` must be at least 1, got {hidden}.")
    rng = np.random.default_rng(seed)
    inputs, outputs = x.shape[1], 1 + int(np.max(t)) if outputs is None else outputs
    params = Params(
        W1=rng.standard_normal((inputs, hidden)) * (2 / math.sqrt(inputs)),
        b1=rng.standard_normal(hidden),
        W2=rng.standard_normal((hidden, outputs)) * (2 / math.sqrt(hidden)),
        b2=rng.standard_normal(outputs),
    )
    rows = rng.choice(len(x), size=samples, replace=False)
    return Problem(params, x[rows].astype(np.float64), np.asarray(t[rows]))


class NotCompared(NamedTuple):
    """A gradient that was not compared, since a verdict on it would mean nothing."""

    backend: str
    strategy: str
    dtype: str
    h: float
    reason: str


class Outcome(NamedTuple):
    """The results of a comparison."""

    rows: list[Agreement]
    not_compared: list[NotCompared]
    not_run: list[dict[str, str]]  # backend, reason
    crashed: list[dict[str, str]]  # backend, dtype, reason
    data_only: Sequence[dict[str, Any]] = ()  # backend, dtype, seconds that other nets would have taken at least
    seconds: float = 0.0  # that the comparison took

    @property
    def agrees(self) -> bool:
        """Whether everything that was compared agrees, and nothing crashed."""
        return all(row.agrees for row in self.rows) and not self.crashed


def _distinct(got: float, expected: float) -> tuple[str, str]:
    """Format two numbers with as many digits as they need to differ, 9 at least."""
    for digits in range(9, 18):
        texts = f"{got:.{digits}g}", f"{expected:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


FORWARD = "forward"
"""Stands for predictions, loss and accuracy, which no strategy computes."""


def disagreement_sentence(row: Agreement) -> str:
    """Describe a quantity that disagrees, in one sentence."""
    where = f"{row.backend} {row.dtype} {row.strategy or FORWARD}"
    place = f"{row.quantity}{list(row.worst_index)}" if row.worst_index else row.quantity
    h = f" at h = {row.h:g}" if row.h is not None else ""
    where += f" ({row.problem})" if row.problem != "data" else ""
    if row.gap is None:
        return f"{where}: {place}{h}: got {row.got}, expected {row.expected}."
    got, expected = _distinct(float(row.got), float(row.expected))
    return (
        f"{where}: {place}{h} is {got}, expected {expected}: the gap of {row.gap:.2g} is "
        f"{row.ratio:.3g} times the bound of {row.bound:.2g}."
    )
