"""What rounding can do to a right implementation: the bounds that every port is held to.

Two right implementations of the same difference differ only by rounding, and rounding has a bound that can be
computed. All sizes below are in units of the unit roundoff u of the port's dtype, taken from the float64 reference at
the very numbers that the port was given. What is left to chance is covered by a factor of 4 on every bound, the only
one.

**Sums.** A sum of n terms is off by r roundings of its absolute size: sqrt(n)/2 where roundings are as often up as
down, and more where they are not (summation.py derives r). The products x_i W_ij of a unit's input are taken to be no
more alike than its weights W_ij, and those of the gradient, x_i g_j, no more than the g_j: r_W1 and r_W2 are those of
each unit's weights and bias, r_g is the largest of a layer's g_j. r_y is that of a sample's probabilities, r_l of the
losses.

    e_a1 = r_W1 (|x||W1| + |b1|)             e_z = z (1 - z) e_a1 + 2 z
    e_a2 = e_z |W2| + r_W2 (z |W2| + |b2|) + max_k |a2|

* predictions: y_k is off by y_k (e_a2[k] + sum_l y_l e_a2[l] + 4 + r_y), from its logit, the others', the softmax
  itself and its sum over the classes.
* loss: E_b = sum_k q |y_k - [k = t]| e_a2[k] + |l_b| for a sample of loss l_b. Samples' errors are independent, but for
  those of the w_b samples that have the logits of b, as all have if W1 = 0; groups of w equal errors E have the root of
  the sum of w E^2 as that of their sum. (Logits count as equal if the largest of them lies as far above their mean, as
  far as the dtype can tell.) The sum over the classes and the addition of DELTA, q (2 + r_y), round alike wherever y_t
  is near 1. So E_L = sqrt(mean_b(w_b E_b^2) / B) + mean_b(q (2 + r_y)) + max(1, r_l) mean_b |l_b|.
* `loop` and `batched` subtract two such losses and divide by 2 h: an entry is off by at most E_L / h.
* `structured`, `collocated` and the closed form subtract nothing: an entry is off relative to the terms that it sums.
  With m = sum_l y_l e_a2[l] + r_y, d_k = q y_k (for k = t the sum over the others) and its forward error f_k = d_k
  (e_a2[k] + m + (1 - q) (e_a2[t] + m)) (likewise), the terms of W2[j, k] are z_j d_k / B with forward error (z_j f_k +
  e_z[j] d_k) / B; those of W1[i, j] are x_i g_j / B, g_j = z w sum_k d_k |W2[j, k]|, with forward error x_i z w sum_k
  |W2[j, k]| (f_k + e_a1[j] d_k) / B. Forward errors of samples are as independent as those of the loss. The evaluation
  of one term takes 16 roundings (e, the quotient, the logarithm, the transform and, in `collocated`, four of
  interpolation), of the same kind for all samples, and r_y of a sum over the classes; the sum over the samples r_g.
* accuracy: a sample whose two largest logits are closer than their errors may fall to either side.

A shift of S = h max(1, max|x|) changes the terms by a factor of at most exp(S + 2 theta), theta = tanh(S/4) V + h
(see reference/collocation.py); where that is more than the losses' own error allows, E_L / h is the bound for all
strategies. It is taken at the worst net within h: with |p| + h for |p|, and l_b and q |y_k - [k = t]| at their
largest once S > 0.1, where all losses are equal: r_l = max(B/8, sqrt(B)/2).

What underflows is lost: up to the least normal number for y_t, and for each of the O terms of a sample's difference;
for a unit's output that moves by less, as much times the weights behind it. The difference is then divided by h.

In training, what a step is off by moves the slopes of the next: by at most L times its length, L a bound on the norm
of the loss's second derivative. With x', z' for x, z with a 1 appended, the logits' derivative by all parameters has a
norm of at most J = sqrt(|z'|^2 + (|W2| |x'| / 4)^2), for sigmoid' <= 1/4; their second derivative along a direction of
length 1 one of at most |x'| / 4 + 0.0963 |W2| |x'|^2, for |sigmoid''| <= 0.0963. The loss's first derivative by the
logits is at most sqrt(2); its second, q (diag(y) - y y^T) - q (1 - q) (e_t - y)(e_t - y)^T, is one of norm <= 1/2 less
another. So L = mean_b(J^2 / 2 + sqrt(2) (|x'| / 4 + 0.0963 |W2| |x'|^2)).
"""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

from comparison.agreement.summation import SAFETY, count_equal, roundings
from reference.functions import DELTA, sigmoid, softmax
from reference.two_layer_net import Params
from reference.validation import unit_roundoff


class Problem(NamedTuple):
    """A net and a mini-batch in float64, on the host."""

    params: Params
    x: np.ndarray  # (B, I)
    t: np.ndarray  # (B,) class indices

    def rounded(self, dtype: str) -> "Problem":
        """Round the problem to `dtype`, as float64: these are the numbers that a port of that dtype gets."""
        params = Params(*(p.astype(dtype).astype(np.float64) for p in self.params))
        return Problem(params, self.x.astype(dtype).astype(np.float64), self.t)


class _Forward(NamedTuple):
    """The reference's forward pass and its errors, in units of u."""

    z: np.ndarray  # (B, H)
    zw: np.ndarray  # (B, H)
    a2: np.ndarray  # (B, O)
    y: np.ndarray  # (B, O)
    y_t: np.ndarray  # (B, 1)
    q: np.ndarray  # (B, 1)
    right: np.ndarray  # (B, O) bool
    e_a1: np.ndarray  # (B, H)
    e_z: np.ndarray  # (B, H)
    e_a2: np.ndarray  # (B, O)
    r_y: np.ndarray  # (B, 1), of the sum over the classes


def _forward(problem: Problem, dtype: str, h: float = 0.0) -> _Forward:
    u = unit_roundoff(dtype)
    params, x, t = problem
    W1, b1, W2, b2 = (np.abs(p) + h for p in params)
    a1 = x @ params.W1 + params.b1
    z, zw = sigmoid(a1), sigmoid(a1) * sigmoid(-a1)
    a2 = z @ params.W2 + params.b2
    y = softmax(a2)
    right = t[:, None] == np.arange(len(b2))
    y_t = y[right][:, None]
    e_a1 = roundings(np.vstack([params.W1, params.b1]), u) * (np.abs(x) @ W1 + b1)
    e_z = zw * e_a1 + 2 * z
    e_a2 = e_z @ W2 + roundings(np.vstack([params.W2, params.b2]), u) * (z @ W2 + b2)
    e_a2 += np.abs(a2).max(axis=1, keepdims=True)
    r_y = roundings(y.T, u)[:, None]
    return _Forward(z, zw, a2, y, y_t, y_t / (y_t + DELTA), right, e_a1, e_z, e_a2, r_y)


class Bounds:
    """The bounds on the results of a right port, for a problem at the numbers that `dtype` holds."""

    def __init__(self, problem: Problem, dtype: str) -> None:
        self._problem, self._dtype = problem, dtype
        self._difference_bounds: dict[float, float] = {}

    @cached_property
    def _net(self) -> _Forward:
        return _forward(self._problem, self._dtype)

    @cached_property
    def predictions(self) -> np.ndarray:
        """The bound on each probability, (B, O)."""
        net = self._net
        mean = (net.y * net.e_a2).sum(axis=1, keepdims=True)
        return _bound(net.y * (net.e_a2 + mean + 4 + net.r_y), self._dtype)

    def loss(self, h: float = 0.0, largest_shift: float = 0.0) -> float:
        """Return the bound 4 E_L on the loss of the net, or of any net within `h` of it."""
        net, u = _forward(self._problem, self._dtype, h) if h else self._net, unit_roundoff(self._dtype)
        samples = len(net.y)
        weight, loss = net.q * np.abs(net.y - net.right), -np.log(net.y_t + DELTA)
        r_loss = float(roundings(loss, u)[0])
        if largest_shift > 0.1:
            weight, loss = np.ones_like(weight), np.full_like(loss, -math.log(DELTA))
            r_loss = max(samples / 8, math.sqrt(samples) / 2)
        magnitude = np.abs(loss)
        errors = (weight * net.e_a2).sum(axis=1, keepdims=True) + magnitude
        forward = math.sqrt(float((_alike_samples(net, u) * errors**2).mean()) / samples)
        e_loss = forward + float((net.q * (2 + net.r_y)).mean()) + max(1.0, r_loss) * float(magnitude.mean())
        return float(_bound(np.asarray(e_loss), self._dtype))

    @cached_property
    def accuracy(self) -> float:
        """The share of samples whose prediction rounding can change."""
        net = self._net
        rows, first = np.arange(len(net.a2)), net.a2.argmax(axis=1)
        distance = net.a2[rows, first][:, None] - net.a2
        distance[rows, first] = math.inf
        error = net.e_a2 + net.e_a2[rows, first][:, None]
        distance[error == 0] = math.inf  # nothing was rounded: of equal logits the first is the prediction
        reach = _bound(error, self._dtype)
        return float((distance <= reach).any(axis=1).mean())

    def gradient(self, strategy: str | None, h: float) -> Params:
        """Return the bound on each entry of the gradient; `strategy` None stands for the closed form."""
        params, x, _ = self._problem
        spread = float(np.ptp(params.W2, axis=1).max())
        shift = h * max(1.0, float(np.abs(x).max()))
        of_losses = self._difference_bound(h, shift)
        growth = shift + 2 * (math.tanh(shift / 4) * spread + h)
        if strategy in ("loop", "batched") or growth > 100:
            return Params(*(np.full(p.shape, of_losses) for p in params))
        tiny = float(np.finfo(self._dtype).tiny)
        underflow = tiny / DELTA * (1 + spread)  # of y_t, which y_t / (y_t + DELTA) magnifies
        underflow += tiny / h * (len(params.b2) + spread) if h else 0  # of what 2 h divides
        terms = (math.exp(growth) * bound + underflow for bound in self._term_bounds)
        return Params(*(np.minimum(bound, of_losses) for bound in terms))

    def _difference_bound(self, h: float, shift: float) -> float:
        """Return the bound on the difference of two losses, divided by 2 h; computed once for each `h`."""
        if h not in self._difference_bounds:
            self._difference_bounds[h] = self.loss(h, shift) / h if h else math.inf
        return self._difference_bounds[h]

    @cached_property
    def _term_bounds(self) -> Params:
        """The bounds on the rounding of what `structured`, `collocated` and the closed form sum."""
        return Params(*(_bound(e, self._dtype) for e in _term_errors(self._problem, self._net, self._dtype)))


def curvature_bound(problem: Problem) -> float:
    """Return L, which no eigenvalue of the loss's second derivative exceeds in size."""
    z = sigmoid(problem.x @ problem.params.W1 + problem.params.b1)
    x2, z2 = ((np.linalg.norm(inputs, axis=1) ** 2 + 1) for inputs in (problem.x, z))
    weight = float(np.linalg.norm(problem.params.W2, 2))
    first, second = z2 + x2 * weight**2 / 16, np.sqrt(x2) / 4 + 0.0963 * weight * x2
    return float((first / 2 + math.sqrt(2) * second).mean())


def _alike_samples(net: _Forward, u: float) -> np.ndarray:
    """Return w, (B, 1): how many samples have the logits of each, itself among them."""
    lead = net.a2.max(axis=1, keepdims=True) - net.a2.mean(axis=1, keepdims=True)
    return count_equal(lead, u)


def _term_errors(problem: Problem, net: _Forward, dtype: str) -> Params:
    """Return the errors of the entries of a gradient that subtracts no losses, in units of u."""
    W2, u = np.abs(problem.params.W2), unit_roundoff(dtype)
    d, f = _delta_and_error(net)
    d_hidden = net.zw * (d @ W2.T)  # (B, H)
    f_hidden = net.zw * (f @ W2.T + net.e_a1 * (d @ W2.T))
    x, ones = np.abs(problem.x), np.ones((len(problem.x), 1))
    alike = _alike_samples(net, u)
    delta = np.where(net.right, -d, d)
    r_hidden, r_output = (roundings(g, u).max() for g in (net.zw * (delta @ problem.params.W2.T), delta))

    def summed(
        inputs: np.ndarray, error: np.ndarray, term: np.ndarray, input_error: np.ndarray, r_sum: float
    ) -> np.ndarray:
        independent = np.sqrt((inputs**2).T @ (alike * error**2) + (input_error**2).T @ (alike * term**2))
        plain = inputs.T @ error + input_error.T @ term
        # No root of a sum of B squares is below the plain sum / sqrt(B): where it is, the squares have underflowed.
        most = math.sqrt(float(alike.max())) * plain
        independent = np.where(independent < 0.99 * plain / math.sqrt(len(x)), most, independent)
        return (independent + inputs.T @ ((16 + net.r_y + r_sum) * term)) / len(x)

    return Params(
        W1=summed(x, f_hidden, d_hidden, 0 * x, r_hidden),
        b1=summed(ones, f_hidden, d_hidden, 0 * ones, r_hidden)[0],
        W2=summed(net.z, f, d, net.e_z, r_output),
        b2=summed(ones, f, d, 0 * ones, r_output)[0],
    )


def _delta_and_error(net: _Forward) -> tuple[np.ndarray, np.ndarray]:
    """Return |d loss / d a2| of each sample (B, O), and its forward error."""
    mean = (net.y * net.e_a2).sum(axis=1, keepdims=True) + net.r_y
    e_t = net.e_a2[net.right][:, None]
    others = np.where(net.right, 0, net.q * net.y)
    error = others * (net.e_a2 + mean + (1 - net.q) * (e_t + mean))
    d = np.where(net.right, others.sum(axis=1, keepdims=True), others)
    return d, np.where(net.right, error.sum(axis=1, keepdims=True), error)


def _bound(units: np.ndarray, dtype: str) -> np.ndarray:
    """Turn an error in units of u into a bound; what underflows is lost on top."""
    return SAFETY * unit_roundoff(dtype) * units + float(np.finfo(dtype).tiny)
