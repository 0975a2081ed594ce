"""The bounds are what comparison/agreement/bounds.py says they are, written out sample by sample and entry by entry."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from comparison.agreement.bounds import Bounds, Problem, curvature_bound
from reference.defaults import DTYPES
from reference.functions import DELTA
from reference.two_layer_net import Params

B, I, H, O = 7, 5, 3, 4  # noqa: E741
U = {"float64": 2.0**-53, "float32": 2.0**-24}
TINY = {dtype: float(np.finfo(dtype).tiny) for dtype in DTYPES}
OF_CLASSES = math.sqrt(O) / 2  # roundings of a sum over the classes
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def problem(seed: int = 0) -> Problem:
    """Return a net of which some probabilities are so small that DELTA counts."""
    rng = np.random.default_rng(seed)
    params = Params(*(rng.standard_normal(shape) for shape in ((I, H), (H,), (H, O), (O,))))
    return Problem(params._replace(b2=8 * params.b2), rng.uniform(-1.5, 1.5, (B, I)), rng.integers(0, O, B))


class Sample(NamedTuple):
    """The forward pass of one sample, and its errors in units of u."""

    x: np.ndarray
    z: list[float]
    y: list[float]
    a2: list[float]
    e_a1: list[float]
    e_z: list[float]
    e_a2: list[float]
    t: int

    @property
    def q(self) -> float:
        return self.y[self.t] / (self.y[self.t] + DELTA)

    @property
    def loss(self) -> float:
        return -math.log(self.y[self.t] + DELTA)

    @property
    def mean_error(self) -> float:
        return sum(y * e for y, e in zip(self.y, self.e_a2, strict=True))

    def delta(self, k: int) -> float:
        """Return d_k."""
        return self.q * (self.y[k] if k != self.t else sum(self.y[n] for n in range(O) if n != k))

    def delta_error(self, k: int) -> float:
        """Return f_k."""
        if k == self.t:
            return sum(self.delta_error(n) for n in range(O) if n != k)
        mean = self.mean_error + OF_CLASSES
        return self.delta(k) * (self.e_a2[k] + mean + (1 - self.q) * (self.e_a2[self.t] + mean))


def samples(net: Problem, h: float = 0.0) -> list[Sample]:
    (W1, b1, W2, b2), found = net.params, []
    for x, t in zip(net.x, net.t, strict=True):
        a1 = [sum(x[i] * W1[i, j] for i in range(I)) + b1[j] for j in range(H)]
        z = [1 / (1 + math.exp(-a)) for a in a1]
        a2 = [sum(z[j] * W2[j, k] for j in range(H)) + b2[k] for k in range(O)]
        total = sum(math.exp(a) for a in a2)
        sizes = [sum(abs(x[i]) * (abs(W1[i, j]) + h) for i in range(I)) + abs(b1[j]) + h for j in range(H)]
        e_a1 = [math.sqrt(I + 1) / 2 * size for size in sizes]
        e_z = [z[j] * (1 - z[j]) * e_a1[j] + 2 * z[j] for j in range(H)]
        sizes = [sum(z[j] * (abs(W2[j, k]) + h) for j in range(H)) + abs(b2[k]) + h for k in range(O)]
        carried = [sum(e_z[j] * (abs(W2[j, k]) + h) for j in range(H)) for k in range(O)]
        e_a2 = [carried[k] + math.sqrt(H + 1) / 2 * sizes[k] + max(map(abs, a2)) for k in range(O)]
        found.append(Sample(x, z, [math.exp(a) / total for a in a2], a2, e_a1, e_z, e_a2, int(t)))
    return found


@EACH_DTYPE
def test_predictions(dtype: str) -> None:
    units = [[s.y[k] * (s.e_a2[k] + s.mean_error + 4 + OF_CLASSES) for k in range(O)] for s in samples(problem())]
    expected = 4 * U[dtype] * np.array(units) + TINY[dtype]
    np.testing.assert_allclose(Bounds(problem(), dtype).predictions, expected, rtol=1e-12)


@EACH_DTYPE
@pytest.mark.parametrize("h", [0.0, 0.3])
@pytest.mark.parametrize("count", [1, B])
def test_the_loss(dtype: str, h: float, count: int) -> None:
    net = problem()
    few = Problem(net.params, net.x[:count], net.t[:count])
    errors = [sum(s.q * abs(s.y[k] - (k == s.t)) * s.e_a2[k] for k in range(O)) + abs(s.loss) for s in samples(few, h)]
    mean = sum(abs(s.loss) for s in samples(few)) / count
    linear = sum(s.q * (2 + OF_CLASSES) for s in samples(few)) / count
    units = math.sqrt(sum(e**2 for e in errors)) / count + linear + max(1, math.sqrt(count) / 2) * mean
    assert Bounds(few, dtype).loss(h) == pytest.approx(4 * U[dtype] * units, rel=1e-12)
    assert Bounds(few, dtype).loss() == Bounds(few, dtype).loss(0.0)


def test_the_loss_within_a_large_shift_is_the_largest() -> None:
    """Of each sample it is -log(DELTA), and each logit counts in full."""
    largest = -math.log(DELTA)
    errors = [sum(s.e_a2) + largest for s in samples(problem(), 0.3)]
    linear = sum(s.q * (2 + OF_CLASSES) for s in samples(problem())) / B
    units = math.sqrt(sum(e**2 for e in errors)) / B + linear + math.sqrt(B) / 2 * largest
    assert Bounds(problem(), "float64").loss(0.3, 0.11) == pytest.approx(4 * U["float64"] * units, rel=1e-12)
    assert Bounds(problem(), "float64").loss(0.3, 0.1) == Bounds(problem(), "float64").loss(0.3)


@EACH_DTYPE
@pytest.mark.parametrize("h", [0.0, 1e-4, 1e-2])
def test_what_subtracts_no_losses(dtype: str, h: float) -> None:
    net = problem()
    found, W2 = samples(net), np.abs(net.params.W2)
    roundings = 16 + math.sqrt(B) / 2 + math.sqrt(O) / 2

    def summed(terms: list[tuple[float, float, float, float]]) -> float:
        """Return the error of a sum of products; each of an input, a factor, and the error of either."""
        squares = sum((value * error) ** 2 + (value_error * factor) ** 2 for value, factor, value_error, error in terms)
        return (math.sqrt(squares) + roundings * sum(value * factor for value, factor, *_ in terms)) / B

    def hidden(s: Sample, j: int) -> tuple[float, float]:
        slope = s.z[j] * (1 - s.z[j])
        factor = slope * sum(s.delta(k) * W2[j, k] for k in range(O))
        return factor, slope * sum(W2[j, k] * (s.delta_error(k) + s.e_a1[j] * s.delta(k)) for k in range(O))

    def bias(factors: list[tuple[float, float]]) -> float:
        return summed([(1.0, factor, 0.0, error) for factor, error in factors])

    def first(i: int, j: int) -> float:
        return summed([(abs(s.x[i]), hidden(s, j)[0], 0.0, hidden(s, j)[1]) for s in found])

    def second(j: int, k: int) -> float:
        return summed([(s.z[j], s.delta(k), s.e_z[j], s.delta_error(k)) for s in found])

    units = Params(
        W1=np.array([[first(i, j) for j in range(H)] for i in range(I)]),
        b1=np.array([bias([hidden(s, j) for s in found]) for j in range(H)]),
        W2=np.array([[second(j, k) for k in range(O)] for j in range(H)]),
        b2=np.array([bias([(s.delta(k), s.delta_error(k)) for s in found]) for k in range(O)]),
    )
    spread, shift = float(np.ptp(net.params.W2, axis=1).max()), h * float(np.abs(net.x).max())
    growth = math.exp(shift + 2 * (math.tanh(shift / 4) * spread + h))
    underflow = TINY[dtype] / DELTA * (1 + spread) + (TINY[dtype] / h * (O + spread) if h else 0)
    of_losses = Bounds(net, dtype).loss(h, shift) / h if h else math.inf
    for got, e in zip(Bounds(net, dtype).gradient("structured" if h else None, h), units, strict=True):
        expected = np.minimum(growth * (4 * U[dtype] * e + TINY[dtype]) + underflow, of_losses)
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("strategy", ["loop", "batched"])
@pytest.mark.parametrize("h", [1e-4, 0.3])
def test_what_subtracts_losses(strategy: str, h: float) -> None:
    net = problem()
    expected = Bounds(net, "float64").loss(h, h * float(np.abs(net.x).max())) / h
    for got, p in zip(Bounds(net, "float64").gradient(strategy, h), net.params, strict=True):
        np.testing.assert_allclose(got, np.full(p.shape, expected), rtol=1e-14)


def test_small_inputs_count_as_1_like_a_biass() -> None:
    net = problem()
    small = net._replace(x=net.x / 100)
    expected = Bounds(small, "float64").loss(0.2, 0.2) / 0.2
    assert Bounds(small, "float64").gradient("loop", 0.2).b1[0] == pytest.approx(expected, rel=1e-14)
    assert expected > 1.2 * Bounds(small, "float64").loss(0.2) / 0.2


def test_where_a_shift_grows_without_limit_the_losses_bound_all() -> None:
    net = problem()
    net.params.W2[0] = 2000.0, -2000.0, 0.0, 0.0
    got, of_losses = (Bounds(net, "float64").gradient(strategy, 0.5) for strategy in ("structured", "loop"))
    for g, e in zip(got, of_losses, strict=True):
        np.testing.assert_array_equal(g, e)


def test_squares_that_underflow_do_not_make_the_bound_smaller() -> None:
    """What stands in for them no root of a sum of squares is above; all samples are alike, of an input that small."""
    net = problem()
    scaled = (Bounds(net._replace(x=net.x * size), "float64") for size in (1e-170, 1e-100))
    got, expected = (bounds.gradient(None, 0.0).W1 for bounds in scaled)
    assert (got * 1e70 > expected).all()
    assert (got * 1e70 < math.sqrt(B) * expected).all()


def test_outputs_whose_squares_underflow_do_not_make_the_bound_smaller() -> None:
    """They are exp(-150) of what they are at a bias of -250, and their errors, with the bias in them, a little more."""
    net, rows = problem(), []
    for bias in (-250.0, -400.0):
        net.params.b1[0] = bias
        rows.append(Bounds(net, "float64").gradient(None, 0.0).W2[0])
    assert (rows[1] * math.exp(150) > rows[0]).all()
    assert (rows[1] * math.exp(150) < 400 / 250 * math.sqrt(B) * rows[0]).all()


@EACH_DTYPE
def test_what_underflows_is_lost_on_top(dtype: str) -> None:
    """Of y_t, which the quotient magnifies by 1 / DELTA, and the weights further; and of the entry itself."""
    net = problem()
    net.x[:, 0] = 0
    lost = TINY[dtype] / DELTA * (1 + np.ptp(net.params.W2, axis=1).max()) + TINY[dtype]
    np.testing.assert_allclose(Bounds(net, dtype).gradient(None, 0.0).W1[0], np.full(H, lost), rtol=1e-12)


def test_of_a_difference_the_step_magnifies_what_underflows() -> None:
    net, h = problem(), 1e-20
    net.x[:, 0] = 0
    lost = TINY["float32"] / h * (O + np.ptp(net.params.W2, axis=1).max())
    np.testing.assert_allclose(Bounds(net, "float32").gradient("structured", h).W1[0], np.full(H, lost), rtol=1e-7)


@EACH_DTYPE
def test_accuracy_counts_samples_whose_two_largest_logits_rounding_can_swap(dtype: str) -> None:
    """The logits are b2 alone, 1 and a little less; their errors are e_a2 = b2 / 2 sqrt(H + 1) + max|b2|, 4 in all."""
    zero = Params(np.zeros((I, 3)), np.zeros(3), np.zeros((3, 2)), np.zeros(2))
    x, t = np.zeros((4, I)), np.zeros(4, int)
    for gap, share in ((15, 1.0), (17, 0.0)):
        b2 = np.array([1.0, 1.0 - gap * U[dtype]])
        assert Bounds(Problem(zero._replace(b2=b2), x, t), dtype).accuracy == share


def test_within_a_large_shift_all_losses_are_equal() -> None:
    """A hundred of them, in whatever order, take 100/8 roundings and no more by chance."""
    net = problem()
    many = Problem(net.params, np.random.default_rng(0).uniform(-1.5, 1.5, (100, I)), np.zeros(100, int))
    found, largest = samples(many), -math.log(DELTA)
    errors = math.sqrt(sum((sum(s.e_a2) + largest) ** 2 for s in found)) / 100
    units = errors + sum(s.q * (2 + OF_CLASSES) for s in found) / 100 + 100 / 8 * largest
    assert Bounds(many, "float64").loss(0.0, 0.11) == pytest.approx(4 * U["float64"] * units, rel=1e-12)


def test_accuracy_is_in_doubt_sample_by_sample() -> None:
    """Hidden unit 0 is the input; its weight brings the logits of the samples of input 0 together."""
    params = Params(np.full((1, 1), 50.0), np.zeros(1), np.array([[1.0, -1.0, 0.5]]), np.array([0.0, 1.0, 0.0]))
    x = np.array([[1.0], [0.0], [-1.0], [0.0]])
    assert Bounds(Problem(params, x, np.zeros(4, int)), "float64").accuracy == 0.5


def test_a_class_so_far_ahead_that_the_differences_are_subnormal_numbers_has_a_bound() -> None:
    """Seven samples of it: an ulp of their sum is less than the smallest number."""
    net = problem()
    ahead = net.params._replace(b2=net.params.b2 + 720 * (np.arange(len(net.params.b2)) == 0))
    far = Problem(ahead, np.resize(net.x, (7, net.x.shape[1])), np.zeros(7, int))
    bounds = Bounds(far, "float64")
    for strategy, h in ((None, 0.0), ("structured", 1e-3), ("collocated", 1e-3)):
        assert all((np.isfinite(b) & (b > 0)).all() for b in bounds.gradient(strategy, h))


def test_samples_that_are_alike_have_one_error() -> None:
    """Of four, whose sum takes no more roundings than that of one, the bound is that of one; of others it is half."""
    net = problem()
    four = Problem(net.params._replace(W1=0 * net.params.W1), net.x[:4], np.zeros(4, int))
    one = Problem(four.params, four.x[:1], four.t[:1])
    assert Bounds(four, "float64").loss() == pytest.approx(Bounds(one, "float64").loss(), rel=1e-12)
    bounds = (Bounds(each, "float64").gradient(None, 0.0).b2 for each in (one, four))
    d = np.abs(np.array([samples(one)[0].delta(k) for k in range(O)]))
    np.testing.assert_allclose(np.diff([*bounds], axis=0)[0], 4 * U["float64"] * d * (2 - 1) / 2, rtol=1e-6)


def test_curvature() -> None:
    net, found = problem(), []
    weight = np.linalg.svd(net.params.W2)[1][0]
    for s in samples(net):
        size, squared = math.hypot(*s.x, 1), sum(z**2 for z in s.z) + 1 + (weight * math.hypot(*s.x, 1) / 4) ** 2
        found.append(squared / 2 + math.sqrt(2) * (size / 4 + 0.0963 * weight * size**2))
    assert curvature_bound(net) == pytest.approx(sum(found) / B, rel=1e-13)


@EACH_DTYPE
def test_a_problem_is_rounded_to_the_nearest(dtype: str) -> None:
    net = problem()
    rounded = net.rounded(dtype)
    for got, exact in zip((*rounded.params, rounded.x), (*net.params, net.x), strict=True):
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, exact.astype(dtype).astype(np.float64))
    np.testing.assert_array_equal(rounded.t, net.t)
