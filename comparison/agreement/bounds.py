"""What rounding can do to a right implementation: the bounds that every port is held to.

Two right implementations of the same difference differ by rounding alone, and rounding has a bound that can be
computed. All sizes below are in units of the unit roundoff u of the port's dtype, taken from the float64 reference at
the very numbers that the port was given. Sums of n terms are charged sqrt(n)/2 roundings of their absolute size:
roundings are as often up as down. A unit's input is a sum of I products and a bias, I + 1 terms; a logit one of H + 1.
What is left to chance is covered by a factor of 4 on every bound, the only one.

    e_a1 = sqrt(I + 1)/2 (|x||W1| + |b1|)             e_z = z (1 - z) e_a1 + 2 z
    e_a2 = e_z |W2| + sqrt(H + 1)/2 (z |W2| + |b2|) + max_k |a2|

* predictions: y_k is off by y_k (e_a2[k] + sum_l y_l e_a2[l] + 4), from its logit, the others' and the softmax itself.
* loss: E_b = sum_k q |y_k - [k = t]| e_a2[k] + 2 q + |l_b| for a sample of loss l_b; the samples' errors are
  independent, and E_L = sqrt(mean_b(E_b^2) / B) + max(1, log2(B)/2) mean_b |l_b|.
* `loop` and `batched` subtract two such losses and divide by 2 h: an entry is off by at most E_L / h.
* `structured`, `collocated` and the closed form subtract nothing: an entry is off relative to the terms that it sums.
  With m = sum_l y_l e_a2[l], d_k = q y_k (for k = t the sum over the others) and its forward error f_k = d_k (e_a2[k]
  + m + (1 - q) (e_a2[t] + m)) (likewise), the terms of W2[j, k] are z_j d_k / B with forward error (z_j f_k + e_z[j]
  d_k) / B; those of W1[i, j] are x_i g_j / B, g_j = z w sum_k d_k |W2[j, k]|, with forward error x_i z w sum_k |W2[j,
  k]| (f_k + e_a1[j] d_k) / B. Forward errors of samples are independent; the evaluation of one term takes 16 roundings
  (e, the quotient, the logarithm, the transform and, in `collocated`, four of interpolation), of the same kind for all
  samples.
* accuracy: a sample whose two largest logits are closer than their errors may fall to either side.

A shift of S = h max(1, max|x|) changes the terms by a factor of at most exp(S + 2 theta), theta = tanh(S/4) V + h
(see reference/collocation.py); where that is more than the losses' own error allows, E_L / h is the bound for all
strategies. It is taken at the worst net within h: with |p| + h for |p|, and l_b and q |y_k - [k = t]| at their
largest once S > 0.1.

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
from typing import NamedTuple

import numpy as np

from reference.functions import DELTA, sigmoid, softmax
from reference.two_layer_net import Params
from reference.validation import unit_roundoff

CHANCE = 4.0


class Problem(NamedTuple):
    """A net and a mini-batch in float64, on the host."""

    params: Params
    x: np.ndarray  # (B, I)
    t: np.ndarray  # (B,) class indices

    def rounded(self, dtype: str) -> "Problem":
        """Return the nearest problem that `dtype` can hold, as float64: what a port of that dtype is given."""
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


def _forward(problem: Problem, h: float = 0.0) -> _Forward:
    params, x, t = problem
    W1, b1, W2, b2 = (np.abs(p) + h for p in params)
    a1 = x @ params.W1 + params.b1
    z, zw = sigmoid(a1), sigmoid(a1) * sigmoid(-a1)
    a2 = z @ params.W2 + params.b2
    y = softmax(a2)
    right = t[:, None] == np.arange(len(b2))
    y_t = y[right][:, None]
    e_a1 = math.sqrt(x.shape[1] + 1) / 2 * (np.abs(x) @ W1 + b1)
    e_z = zw * e_a1 + 2 * z
    e_a2 = e_z @ W2 + math.sqrt(len(W2) + 1) / 2 * (z @ W2 + b2) + np.abs(a2).max(axis=1, keepdims=True)
    return _Forward(z, zw, a2, y, y_t, y_t / (y_t + DELTA), right, e_a1, e_z, e_a2)


def predictions_bound(problem: Problem, dtype: str) -> np.ndarray:
    """Return the bound on each probability, (B, O)."""
    net = _forward(problem)
    mean = (net.y * net.e_a2).sum(axis=1, keepdims=True)
    return _bound(net.y * (net.e_a2 + mean + 4), dtype)


def loss_bound(problem: Problem, dtype: str, h: float = 0.0, largest_shift: float = 0.0) -> float:
    """Return the bound 4 E_L on the loss of the net, or of any net within `h` of it."""
    net = _forward(problem, h)
    weight, loss = net.q * np.abs(net.y - net.right), -np.log(net.y_t + DELTA)
    if largest_shift > 0.1:
        weight, loss = np.ones_like(weight), np.full_like(loss, -math.log(DELTA))
    size = np.abs(loss)
    errors = (weight * net.e_a2).sum(axis=1, keepdims=True) + 2 * net.q + size
    samples = len(loss)
    e_loss = math.sqrt(float((errors**2).mean()) / samples) + max(1.0, math.log2(samples) / 2) * float(size.mean())
    return float(_bound(np.asarray(e_loss), dtype))


def accuracy_bound(problem: Problem, dtype: str) -> float:
    """Return the share of samples whose prediction rounding can turn."""
    net = _forward(problem)
    rows, first = np.arange(len(net.a2)), net.a2.argmax(axis=1)
    distance = net.a2[rows, first][:, None] - net.a2
    distance[rows, first] = math.inf
    reach = _bound(net.e_a2 + net.e_a2[rows, first][:, None], dtype)
    return float((distance <= reach).any(axis=1).mean())


def gradient_bound(problem: Problem, dtype: str, strategy: str | None, h: float) -> Params:
    """Return the bound on each entry of the gradient; `strategy` None stands for the closed form."""
    spread = float(np.ptp(problem.params.W2, axis=1).max())
    shift = h * max(1.0, float(np.abs(problem.x).max()))
    of_losses = loss_bound(problem, dtype, h, shift) / h if h else math.inf
    growth = shift + 2 * (math.tanh(shift / 4) * spread + h)
    if strategy in ("loop", "batched") or growth > 100:
        return Params(*(np.full(p.shape, of_losses) for p in problem.params))
    tiny = float(np.finfo(dtype).tiny)
    underflow = tiny / DELTA * (1 + spread)  # of y_t, which y_t / (y_t + DELTA) magnifies
    underflow += tiny / h * (len(problem.params.b2) + spread) if h else 0  # of what 2 h divides
    terms = (math.exp(growth) * _bound(e, dtype) + underflow for e in _term_errors(problem))
    return Params(*(np.minimum(bound, of_losses) for bound in terms))


def curvature_bound(problem: Problem) -> float:
    """Return L, which no eigenvalue of the loss's second derivative exceeds in size."""
    x2, z2 = ((np.linalg.norm(inputs, axis=1) ** 2 + 1) for inputs in (problem.x, _forward(problem).z))
    weight = float(np.linalg.norm(problem.params.W2, 2))
    first, second = z2 + x2 * weight**2 / 16, np.sqrt(x2) / 4 + 0.0963 * weight * x2
    return float((first / 2 + math.sqrt(2) * second).mean())


def _term_errors(problem: Problem) -> Params:
    """Return the errors of the entries of a gradient that subtracts no losses, in units of u."""
    net, params = _forward(problem), problem.params
    d, f = _delta_and_error(net)
    W2 = np.abs(params.W2)
    d_hidden = net.zw * (d @ W2.T)  # (B, H)
    f_hidden = net.zw * (f @ W2.T + net.e_a1 * (d @ W2.T))
    x, ones = np.abs(problem.x), np.ones((len(problem.x), 1))
    roundings = 16 + math.sqrt(len(x)) / 2 + math.sqrt(d.shape[1]) / 2

    def summed(inputs: np.ndarray, error: np.ndarray, term: np.ndarray, input_error: np.ndarray) -> np.ndarray:
        independent = np.sqrt((inputs**2).T @ error**2 + (input_error**2).T @ term**2)
        alike = inputs.T @ error + input_error.T @ term
        # No root of a sum of B squares is below the plain sum / sqrt(B): where it is, the squares have underflowed.
        independent = np.where(independent < 0.99 * alike / math.sqrt(len(x)), alike, independent)
        return (independent + roundings * (inputs.T @ term)) / len(x)

    return Params(
        W1=summed(x, f_hidden, d_hidden, 0 * x),
        b1=summed(ones, f_hidden, d_hidden, 0 * ones)[0],
        W2=summed(net.z, f, d, net.e_z),
        b2=summed(ones, f, d, 0 * ones)[0],
    )


def _delta_and_error(net: _Forward) -> tuple[np.ndarray, np.ndarray]:
    """Return |d loss / d a2| of each sample (B, O), and its forward error."""
    mean = (net.y * net.e_a2).sum(axis=1, keepdims=True)
    e_t = net.e_a2[net.right][:, None]
    others = np.where(net.right, 0, net.q * net.y)
    error = others * (net.e_a2 + mean + (1 - net.q) * (e_t + mean))
    d = np.where(net.right, others.sum(axis=1, keepdims=True), others)
    return d, np.where(net.right, error.sum(axis=1, keepdims=True), error)


def _bound(units: np.ndarray, dtype: str) -> np.ndarray:
    """Turn an error in units of u into a bound; what underflows is lost on top."""
    return CHANCE * unit_roundoff(dtype) * units + float(np.finfo(dtype).tiny)
