"""Faults of the JAX port, each an edit of its source: function, what stands there, what is put in its place.

Equivalent, and so left out:

* matrix products in JAX's default precision: on the CPU it is the full one;
* sigmoid as 1 / (1 + exp(-a)): exp overflows to infinity where the sigmoid underflows to 0;
* the hidden units' sum over all k in place of k != t: the term of k = t has V = 0 and is 0;
* one term of the power sums too few where their number is even: an even term falls out of S(+) - S(-) but for the
  rounding that the plan allows anyway.
"""

from wrong_ports import edit

_STEP = "    largest_shift ="
_LOSS = "-jnp.log(y_t + DELTA).mean()"
_SOFTMAX = "jax.nn.softmax(_logits(params, x))"
_CHUNKS = "_slices(len(x), memory // row_bytes(params, needs))"
_HIDDEN, _OUTPUT = "positive_nodes(needs.hidden_nodes)", "positive_nodes(needs.output_nodes)"

STEP = {
    "loop: forward differences": edit("_member_differences", "(h, -h)", "(h, 0 * h)")
    + edit("_member_differences", "(2 * h)", "h"),
    "loop: backward differences": edit("_member_differences", "(h, -h)", "(0 * h, -h)")
    + edit("_member_differences", "(2 * h)", "h"),
    "loop: no half": edit("_member_differences", "(2 * h)", "h"),
    "loop: half twice": edit("_member_differences", "(2 * h)", "(4 * h)"),
    "loop: negated": edit("_member_differences", "above - below", "below - above"),
    "loop: step relative to |p|": edit("_member_differences", "for by in (h, -h)", "for by in (h * size, -h * size)")
    + edit("_member_differences", "        copies =", "        size = jnp.abs(p[(*row, column)])\n        copies =")
    + edit("_member_differences", "(2 * h)", "(2 * h * size)"),
    "loop: divisor in float32": edit("_member_differences", "(2 * h)", "(2 * h.astype(jnp.float32))"),
    "loop: move in float32": edit("_member_differences", "add(by)", "add(by.astype(jnp.float32))"),
    "loop: five-point formula": edit("_member_differences", "(h, -h))", "(h, -h, 2 * h, -2 * h))")
    + edit("_member_differences", "above, below = (losses", "above, below, far, back = (losses")
    + edit("_member_differences", "(above - below) / (2 * h)", "(8 * (above - below) - far + back) / (12 * h)"),
    "h doubled": edit("_shifts", _STEP, "    h = 2 * h\n" + _STEP),
    "h halved": edit("_shifts", _STEP, "    h = h / 2\n" + _STEP),
    "h ten times": edit("_shifts", _STEP, "    h = 10 * h\n" + _STEP),
    "h a tenth": edit("_shifts", _STEP, "    h = h / 10\n" + _STEP),
    "h ignored": edit("_shifts", _STEP, "    h = 1e-4\n" + _STEP),
    "h doubled in training": edit("train_steps", "_shifts(h, sizes, x)", "_shifts(2 * h, sizes, x)"),
    "h ignored in training": edit("train_steps", "check_step(h)", "check_step(1e-4)"),
    "training's default h is 1e-5": edit("train_steps", "h: float = 1e-4", "h: float = 1e-5"),
    **{
        f"{name}: default h is 1e-3": edit(name, "h: float = 1e-4", "h: float = 1e-3")
        for name in ("loop", "batched", "structured", "collocated")
    },
    "structured: no half": edit("_structured", "shifts.h, memory", "shifts.h / 2, memory"),
    "structured: negated": edit("_structured", "shifts.h, memory", "-shifts.h, memory"),
    "structured: closed form": edit("structured", "return _by_chunks", "return gradient(params, x, t) or _by_chunks"),
    "structured: b1 moved by S": edit("_structured", "b1=_hidden_difference(net, shifts.h,", "b1=_hidden_difference(net, shifts.reach,"),
    "collocated: no half": edit("_collocated", "shifts.h, memory", "shifts.h / 2, memory"),
    "collocated: divisor in float32": edit("_collocated", "shifts.h, memory", "shifts.h.astype(jnp.float32), memory"),
    "collocated: closed form": edit("collocated", "return _by_chunks", "return gradient(params, x, t) or _by_chunks"),
}
LOSS = {
    "DELTA dropped": edit("_loss", "y_t + DELTA", "y_t"),
    "DELTA is 1e-8": edit("", "from reference.functions import DELTA\n", "DELTA = 1e-8\n"),
    "clipped at DELTA": edit("_loss", "y_t + DELTA", "jnp.maximum(y_t, DELTA)"),
    "base 2": edit("_loss", "jnp.log(", "jnp.log2("),
    "sum for mean": edit("_loss", ".mean()", ".sum()"),
    "B - 1": edit("_loss", _LOSS, "-jnp.log(y_t + DELTA).sum() / (len(y_t) - 1)"),
    "sign": edit("_loss", "-jnp.log", "jnp.log"),
    "closed form: loss without DELTA": edit("_closed_form", "jnp.log(y_t + DELTA)", "jnp.log(y_t)"),
    "closed form: q dropped": edit("_closed_form", "y_t / (y_t + DELTA) / len(x)", "1 / len(x)"),
    "closed form: B - 1": edit("_closed_form", "/ len(x)", "/ (len(x) - 1)"),
    "structured: sum for mean of the loss": edit("_structured", "return net.loss.sum(),", "return len(x) * net.loss.sum(),"),
    "structured: B - 1": edit("_structured", "shifts.h, memory", "shifts.h * (len(x) - 1) / len(x), memory"),
    "collocated: sum for mean of the loss": edit("_collocated", "return net.loss.sum(),", "return len(x) * net.loss.sum(),"),
    "collocated: sum for mean": edit("_collocated", "shifts.h, memory", "shifts.h / len(x), memory"),
    "differences: loss without DELTA": edit("_unperturbed", "jnp.log(y_t + DELTA)", "jnp.log(y_t)"),
    "differences: q dropped": edit("_unperturbed", "q=y_t / (y_t + DELTA)", "q=jnp.ones_like(y_t)"),
    "differences: r dropped": edit("_unperturbed", "r=DELTA /", "r=0 * DELTA /"),
    "exponentials: DELTA is 1e-8": edit("_by_exponentials", "math.log(DELTA)", "math.log(1e-8)"),
}
FORWARD = {
    "b1 missing": edit("_logits", "_matmul(x, params.W1) + params.b1", "_matmul(x, params.W1)"),
    "b1 negated": edit("_logits", "+ params.b1", "- params.b1"),
    "b2 missing": edit("_logits", " + params.b2", ""),
    "b2 negated": edit("_logits", "+ params.b2", "- params.b2"),
    "tanh": edit("_sigmoid", "    tail =", "    return jnp.tanh(a)\n    tail ="),
    "hard sigmoid": edit("_sigmoid", "    tail =", "    return jax.nn.hard_sigmoid(a)\n    tail ="),
    "relu": edit("_sigmoid", "    tail =", "    return jax.nn.relu(a)\n    tail ="),
    "sigmoid by tanh": edit("_sigmoid", "    tail =", "    return (1 + jnp.tanh(a / 2)) / 2\n    tail ="),
    "sigmoid mirrored": edit("_sigmoid", "a >= 0", "a < 0"),
    "softmax over the samples": edit("_predict", _SOFTMAX, "jax.nn.softmax(_logits(params, x), axis=0)"),
    "softmax unshifted": edit("_predict", _SOFTMAX, "(lambda e: e / e.sum(axis=1, keepdims=True))(jnp.exp(_logits(params, x)))"),
    "softmax twice": edit("_predict", _SOFTMAX, f"jax.nn.softmax({_SOFTMAX})"),
    "accuracy of the least probable": edit("_accuracy", "argmax", "argmin"),
    "closed form: b1 missing": edit("_closed_form", " + params.b1", ""),
    "closed form: b2 missing": edit("_closed_form", " + params.b2", ""),
    "differences: b1 missing": edit("_unperturbed", " + params.b1", ""),
    "differences: b2 negated": edit("_unperturbed", "+ params.b2", "- params.b2"),
    "differences: softmax over the samples": edit("_unperturbed", "jax.nn.softmax(a2)", "jax.nn.softmax(a2, axis=0)"),
    "differences: softmax unshifted": edit("_unperturbed", "jax.nn.softmax(a2)", "jnp.exp(a2) / jnp.exp(a2).sum(axis=1, keepdims=True)"),
}
INDEXING = {
    "label + 1": edit("_checked", "check_labels(t, len(x), len(params.b2))", "(check_labels(t, len(x), len(params.b2)) + 1) % len(params.b2)"),
    "sample 0's label for all": edit("_loss", "labels[:, None]", "jnp.zeros_like(labels)[:, None] + labels[0]"),
    "labels reversed": edit("_closed_form", "labels[:, None]", "labels[::-1, None]"),
    "labels of the first chunk for all": edit("_by_chunks", "labels[rows]", "labels[: rows.stop - rows.start]"),
    "batched: last chunk lost": edit("_member_differences", "(differences(flat[whole:]))", "(0 * differences(flat[whole:]))"),
    "loop: order rolled": edit("_member_differences", "entries.ravel()", "jnp.roll(entries.ravel(), 1)"),
    "loop: column-major": edit("_member_differences", "unravel_index(at, p.shape)", "unravel_index(at, p.shape[::-1])[::-1]"),
    "loop: last parameter dropped": edit("_differences", "Params(*(", "Params(*(0 * params[m] if m == 3 else "),
    "structured: last parameter dropped": edit("_structured", "shifts.h, needs).sum(axis=0),\n        )", "shifts.h, needs).sum(axis=0).at[-1].set(0),\n        )"),
    "structured: last chunk of pairs lost": edit("_sum_by_pixel", "fori_loop(0, -(-count // size)", "fori_loop(0, count // size"),
    "structured: padding counted": edit("_sum_by_pixel", "jnp.where(n * size + jnp.arange(size) < count, x[b, i], 0)", "x[b, i]"),
    "structured: neighbouring pixel": edit("_sum_by_pixel", "x[b, i]", "x[b, (i + 1) % x.shape[1]]"),
    "last chunk of samples lost": edit("_by_chunks", f"in {_CHUNKS}", f"in (lambda c: c[: max(1, len(c) - 1)])([*{_CHUNKS}])"),
    "shorter chunk lost": edit("_slices", "range(0, length, size)", "range(0, max(1, length - size + 1), size)"),
    "chunks weigh the same": edit("_by_chunks", "(rows.stop - rows.start) / len(x)", f"1 / len([*{_CHUNKS}])"),
    "first chunk lost in training": edit("_summed", "fori_loop(0, whole", "fori_loop(1, whole"),
    "rest lost in training": edit("_summed", "if rest := len(x) % size:", "if rest := 0:"),
    "rest counted twice in training": edit("_summed", "(x[-rest:], labels[-rest:])", "(x[-size:], labels[-size:])"),
    "collocated: W1 transposed": edit("_collocated_sums", "Params(W1,", "Params(W1.T.reshape(W1.shape),"),
    "collocated: W2 column-major": edit("_collocated_sums", "b1, W2,", "b1, W2.ravel().reshape(W2.shape[::-1]).T,"),
    "collocated: order of b1 rolled": edit("_collocated_sums", "(W1, b1,", "(W1, jnp.roll(b1, 1),"),
}
PRECISION = {
    "x in float32": edit("_logits", "_matmul(x,", "_matmul(x.astype(jnp.float32).astype(x.dtype),"),
    "logits in float32": edit("_predict", "_logits(params, x)", "_logits(params, x).astype(jnp.float32).astype(x.dtype)"),
    "W2 in bfloat16": edit("_logits", "params.W2)", "params.W2.astype(jnp.bfloat16).astype(x.dtype))"),
    "accuracy in float32": edit("_accuracy", ".astype(x.dtype)", ""),
    "differences: x in float32": edit("_unperturbed", "_matmul(x,", "_matmul(x.astype(jnp.float32).astype(x.dtype),"),
    "differences: z in float32": edit("_unperturbed", "z1 = _sigmoid(a1)", "z1 = _sigmoid(a1).astype(jnp.float32).astype(x.dtype)"),
    "differences: logits in float32": edit("_unperturbed", "jax.nn.softmax(a2)", "jax.nn.softmax(a2.astype(jnp.float32)).astype(x.dtype)"),
    "differences: W2 in bfloat16": edit("_unperturbed", "V = params.W2.T", "V = params.W2.T.astype(jnp.bfloat16).astype(x.dtype)"),
    "expm1 as exp - 1": edit("_expm1", "    if terms == 0:", "    if terms:\n        return jnp.exp(v) - 1\n    if terms == 0:"),
    "expm1 in float32": edit("_expm1", "return v * total", "return v * total.astype(jnp.float32).astype(v.dtype)"),
    "large shifts: expm1 as exp - 1": edit("_expm1", "jnp.expm1(v)", "(jnp.exp(v.astype(jnp.float32)) - 1).astype(v.dtype)"),
    "expm1: two terms too few": edit("_expm1", "range(terms, 1, -1)", "range(terms - 2, 1, -1)"),
    "hidden log1p as log(1 + .)": edit("_by_power_sums", "jnp.log1p(", "jnp.log(1 + "),
    "output log1p as log(1 + .)": edit("_output_difference", "jnp.log1p(", "jnp.log(1 + "),
    "exponentials: log1p in float32": edit("_by_exponentials", "jnp.log1p(jnp.abs(change)", "jnp.log1p(jnp.abs(change.astype(jnp.float32))"),
    "nodes in float32": edit("_collocated_sums", f"{_HIDDEN}.astype(x.dtype)", f"{_HIDDEN}.astype(jnp.float32)"),
    "transform in float32": edit("_interpolate", ".astype(values.dtype)", ".astype(jnp.float32).astype(values.dtype)"),
    "structured: step in float32": edit("_sum_by_pixel", "h * jnp.abs(value)", "h.astype(jnp.float32) * jnp.abs(value)"),
    "learning rate in float32": edit("train_steps", "x.dtype), sizes", "jnp.float32), sizes"),
}
DIRECT = {
    "a hidden node too few": edit("_collocated_sums", _HIDDEN, "positive_nodes(max(1, needs.hidden_nodes - 1))"),
    "an output node too few": edit("_collocated_sums", _OUTPUT, "positive_nodes(max(1, needs.output_nodes - 1))"),
    "nodes of another polynomial": edit("_collocated_sums", _HIDDEN, "(positive_nodes(needs.hidden_nodes) * 0.99)"),
    "nodes in (0, h]": edit("_collocated_sums", "shifts.reach *", "shifts.h *"),
    "wrong basis": edit("_odd_chebyshev", "4 * v * v - 2", "4 * v * v - 1"),
    "monomials for a basis": edit("_odd_chebyshev", "twice_t2 * basis[-1] - basis[-2]", "v * v * basis[-1]"),
    "inputs not scaled": edit("_collocated_sums", "x * shifts.scale", "x"),
    "a bias has the largest input": edit("_collocated_sums", "shifts.scale, _hidden", "jnp.ones((), x.dtype), _hidden"),
    "a term too few of the polynomial": edit("_polynomial", "sums.shape[1] - 2", "sums.shape[1] - 3"),
    "two power sums too few": edit("_power_sums", "range(terms)", "range(max(1, terms - 2))"),
    "factorial dropped": edit("_power_sums", "(V / (n + 1))", "V"),
    "non-zeros skipped": edit("_sum_by_pixel", "jnp.nonzero(x.T", "jnp.nonzero(x.T > 0.1")
    + edit("_sum_by_pixel", "count_nonzero(x)", "count_nonzero(x > 0.1)"),
    "negative inputs skipped": edit("_sum_by_pixel", "jnp.nonzero(x.T", "jnp.nonzero(x.T > 0")
    + edit("_sum_by_pixel", "count_nonzero(x)", "count_nonzero(x > 0)"),
    "S over all k": edit("_unperturbed", "others = jnp.where(right, 0, y)", "others = y"),
    "moves not relative to the right class": edit("_unperturbed", "params.W2.T[labels][:, None]", "0 * params.W2.T[labels][:, None]"),
    "moves relative to class 0": edit("_unperturbed", "params.W2.T[labels]", "params.W2.T[0 * labels]"),
    "1 - z": edit("_unperturbed", "w1=_sigmoid(-a1)", "w1=1 - z1"),
    "1 - y_t": edit("_unperturbed", "jnp.where(right, others.sum(axis=1, keepdims=True), y)", "jnp.where(right, 1 - y_t, y)"),
    "closed form: 1 - z": edit("_closed_form", "_sigmoid(-a1)", "(1 - z1)"),
    "closed form: y - 1": edit("_closed_form", "-others.sum(axis=1, keepdims=True)", "y_t - 1"),
    "sign of the right class": edit("_unperturbed", "jnp.where(right, -1, 1)", "jnp.where(right, 1, 1)"),
    "sign of an input forgotten": edit("_sum_by_pixel", "jnp.sign(value) * ", ""),
    "shifts of either sign": edit("_sum_by_pixel", "h * jnp.abs(value)", "h * value"),
    "up and down swapped": edit("_hidden_difference", "slope / (1 + net.w1 * e), slope / (1 + net.z1 * e)", "slope / (1 + net.z1 * e), slope / (1 + net.w1 * e)"),
    "moves to first order": edit("_hidden_difference", "slope / (1 + net.w1 * e), slope / (1 + net.z1 * e)", "slope, slope"),
    "1 + S(-) dropped": edit("_by_power_sums", "(1 + below) *", "1 *"),
    "1 + r S(+) dropped": edit("_by_power_sums", "(1 + net.r * above)", "1"),
    "output: 1 + y f dropped": edit("_output_difference", "(1 + net.y * f) *", "1 *"),
    "output: shifts not by z": edit("_structured", "shifts.h * net.z1.T", "shifts.h * jnp.sqrt(net.z1.T)"),
    "large shifts: slope at the start": edit("_hidden_difference", "-_sigmoid(net.a1 + s)", "-net.z1"),
    "exponentials: sign forgotten": edit("_by_exponentials", "jnp.sign(apart) * ", ""),
    "exponentials: lesser and greater swapped": edit("_by_exponentials", "change > 0", "change < 0"),
}
STATE = {
    "stale mini-batch": edit("_scan", "x[batch], labels[batch]", "x[batches[0]], labels[batches[0]]"),
    "stale labels": edit("_scan", "labels[batch]", "labels[batches[0]]"),
    "learning rate's sign": edit("_scan", "p - rate * g", "p + rate * g"),
    "learning rate halved": edit("_scan", "p - rate * g", "p - rate / 2 * g"),
    "the last step is not taken": edit("_scan", "lax.scan(step, params, batches)", "lax.scan(step, params, batches)\n    trained = lax.scan(step, params, batches[:-1])[0]"),
    "slopes of the initial net": edit("_scan", "    def step(", "    start = params\n\n    def step(")
    + edit("_scan", "loss_and_gradient(params,", "loss_and_gradient(start,"),
    "losses in reverse": edit("_scan", "return trained, losses,", "return trained, losses[::-1],"),
    "b2 is not trained": edit("_scan", "return trained, losses,", "return trained._replace(b2=params.b2), losses,"),
    "trained by the closed form": edit("_loss_and", "    if gradient in (structured", "    return _closed_form\n    if gradient in (structured"),
    "the caller's net is donated": edit("_compiled", "static_argnames=sorted(static),", "static_argnames=sorted(static), donate_argnames=[n for n in ('params',) if function is _scan],"),
    "the caller's labels are changed": edit("_checked", "    check_memory(memory)", "    check_memory(memory)\n    if isinstance(t, np.ndarray):\n        t[..., -1] = t[..., 0]"),
    "to_numpy aliases": edit("to_numpy", "np.array(array)", "np.asarray(array)"),
    "from_numpy changes its source": edit("from_numpy", "    copy =", "    array *= 1 - 1e-3\n    copy ="),
    "from_numpy reads in the order of memory": edit("from_numpy", "np.array(check_numbers(array), dtype=check_dtype(dtype))", "np.array(array, dtype=check_dtype(dtype)).ravel('K').reshape(np.shape(array))"),
}
FAULTS = STEP | LOSS | FORWARD | INDEXING | PRECISION | DIRECT | STATE
