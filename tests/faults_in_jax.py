"""Faults of the JAX port, each an edit of its source: function, what stands there, what is put in its place.

Equivalent, and so left out:

* matrix products in JAX's default precision: on the CPU it is the full one;
* sigmoid as 1 / (1 + exp(-a)): exp overflows to infinity where the sigmoid underflows to 0;
* the hidden units' sum over all k in place of k != t: the term of k = t has V = 0 and is 0;
* one term of the power sums too few where their number is even: an even term falls out of S(+) - S(-) but for the
  rounding that the plan allows anyway.
"""

from wrong_ports import Edit, edit

_LOSS = "-jnp.log(right + DELTA).mean()"
_SOFTMAX = "softmax(logits(params, x))"
_DELTA = "from reference.functions import DELTA\n"
_DIVISOR = "2 * h * len(x)"
_FULL_PASS = "    params: Params, x: Array, labels: Array, h: Array, entries: Entries"
_HIDDEN, _OUTPUT = "positive_nodes(plan.hidden_nodes)", "positive_nodes(plan.output_nodes)"


def with_h(changed: str) -> tuple[Edit, ...]:
    """Take another h in every strategy and in training."""
    loop, batched, structured, collocated, training = (
        edit(name, "check_h(h)", changed) for name in ("loop", "batched", "structured", "collocated", "train_steps")
    )
    return loop + batched + structured + collocated + training


def in_predictions(old: str, new: str) -> tuple[Edit, ...]:
    """Edit the predictions and the loss alike."""
    return edit("probabilities", old, new) + edit("loss_of_labels", old, new)


STEP = {
    "loop: forward differences": edit("loop_member", "value - h", "value") + edit("loop_member", "(2 * h)", "h"),
    "loop: backward differences": edit("loop_member", "value + h", "value") + edit("loop_member", "(2 * h)", "h"),
    "loop: no half": edit("loop_member", "(2 * h)", "h"),
    "loop: half twice": edit("loop_member", "(2 * h)", "(4 * h)"),
    "loop: negated": edit("loop_member", "above - below", "below - above"),
    "loop: step relative to |p|": edit("loop_member", "value + h", "value + h * jnp.abs(value)")
    + edit("loop_member", "value - h", "value - h * jnp.abs(value)")
    + edit("loop_member", "(2 * h)", "(2 * h * jnp.abs(value))"),
    "loop: divisor in float32": edit("loop_member", "(2 * h)", "(2 * h.astype(jnp.float32))"),
    "loop: move in float32": edit("loop_member", "value + h", "value + h.astype(jnp.float32)")
    + edit("loop_member", "value - h", "value - h.astype(jnp.float32)"),
    "loop: five-point formula": edit("loop_member", "        return (above", "        far, back = loss_at(entry, value + 2 * h), loss_at(entry, value - 2 * h)\n        return (above")
    + edit("loop_member", "(above - below) / (2 * h)", "(8 * (above - below) - far + back) / (12 * h)"),
    "batched: forward differences": edit("copies_differences", "value - h", "value") + edit("copies_differences", "(2 * h)", "h"),
    "batched: no half": edit("copies_differences", "(2 * h)", "h"),
    "batched: negated": edit("copies_differences", "above - below", "below - above"),
    "batched: divisor in float32": edit("copies_differences", "(2 * h)", "(2 * h.astype(jnp.float32))"),
    "batched: move in float32": edit("copies_differences", "value + h", "value + h.astype(jnp.float32)")
    + edit("copies_differences", "value - h", "value - h.astype(jnp.float32)"),
    "h doubled": with_h("check_h(h) * 2"),
    "h halved": with_h("check_h(h) / 2"),
    "h ten times": with_h("check_h(h) * 10"),
    "h a tenth": with_h("check_h(h) / 10"),
    "h ignored": with_h("check_h(1e-4)"),
    "h doubled in training": edit("train_steps", "scalar(h)", "scalar(2 * h)"),
    "h ignored in training": edit("train_steps", "check_h(h)", "check_h(1e-4)"),
    "training's default h is 1e-5": edit("train_steps", "h: float = H", "h: float = 1e-5"),
    **{
        f"{name}: default h is 1e-3": edit(name, "h: float = H", "h: float = 1e-3")
        for name in ("loop", "batched", "structured", "collocated")
    },
    "structured: no half": edit("structured_gradient", _DIVISOR, "h * len(x)"),
    "structured: negated": edit("structured_gradient", _DIVISOR, "-2 * h * len(x)"),
    "structured: closed form": edit("structured", "return compiled(", "from ports.jax_port.two_layer_net import gradient\n    return gradient(params, x, t) or compiled("),
    "structured: b1 moved by S": edit("structured_gradient", "b1=hidden_difference(base, h,", "b1=hidden_difference(base, h * jnp.maximum(1, jnp.abs(x).max()),"),
    "collocated: no half": edit("collocated_gradient", _DIVISOR, "h * len(x)"),
    "collocated: divisor in float32": edit("collocated_gradient", _DIVISOR, "2 * h.astype(jnp.float32) * len(x)"),
    "collocated: closed form": edit("collocated", "return program(", "from ports.jax_port.two_layer_net import gradient\n    return gradient(params, x, t) or program("),
}
LOSS = {
    "DELTA dropped": edit("cross_entropy_error", "right + DELTA", "right"),
    "DELTA is 1e-8": edit("", _DELTA, "DELTA = 1e-8\n", "ports.jax_port.functions")
    + edit("", _DELTA, "DELTA = 1e-8\n", "ports.jax_port.two_layer_net")
    + edit("", _DELTA, "DELTA = 1e-8\n", "ports.jax_port.loss_difference"),
    "clipped at DELTA": edit("cross_entropy_error", "right + DELTA", "jnp.maximum(right, DELTA)"),
    "base 2": edit("cross_entropy_error", "jnp.log(", "jnp.log2("),
    "sum for mean": edit("cross_entropy_error", ".mean()", ".sum()"),
    "B - 1": edit("cross_entropy_error", _LOSS, "-jnp.log(right + DELTA).sum() / (len(right) - 1)"),
    "sign": edit("cross_entropy_error", "-jnp.log", "jnp.log"),
    "closed form: loss without DELTA": edit("closed_form", "jnp.log(y_t + DELTA)", "jnp.log(y_t)"),
    "closed form: q dropped": edit("closed_form", "y_t / (y_t + DELTA) / len(x)", "1 / len(x)"),
    "closed form: B - 1": edit("closed_form", "/ len(x)", "/ (len(x) - 1)"),
    "structured: sum for mean of the loss": edit("structured_gradient", "return loss / len(x),", "return loss,"),
    "structured: B - 1": edit("structured_gradient", _DIVISOR, "2 * h * (len(x) - 1)"),
    "collocated: sum for mean of the loss": edit("collocated_gradient", "return loss / len(x),", "return loss,"),
    "collocated: sum for mean": edit("collocated_gradient", _DIVISOR, "2 * h"),
    "differences: loss without DELTA": edit("unperturbed_pass", "jnp.log(y_t + DELTA)", "jnp.log(y_t)"),
    "differences: q dropped": edit("unperturbed_pass", "q=y_t / (y_t + DELTA)", "q=jnp.ones_like(y_t)"),
    "differences: r dropped": edit("unperturbed_pass", "r=DELTA /", "r=0 * DELTA /"),
    "exponentials: DELTA is 1e-8": edit("difference_by_exponentials", "math.log(DELTA)", "math.log(1e-8)"),
}
FORWARD = {
    "b1 missing": edit("logits", " + params.b1", ""),
    "b1 negated": edit("logits", "+ params.b1", "- params.b1"),
    "b2 missing": edit("logits", " + params.b2", ""),
    "b2 negated": edit("logits", "+ params.b2", "- params.b2"),
    "tanh": edit("sigmoid", "    tail =", "    return jnp.tanh(a)\n    tail ="),
    "hard sigmoid": edit("sigmoid", "    tail =", "    return jax.nn.hard_sigmoid(a)\n    tail ="),
    "relu": edit("sigmoid", "    tail =", "    return jax.nn.relu(a)\n    tail ="),
    "sigmoid by tanh": edit("sigmoid", "    tail =", "    return (1 + jnp.tanh(a / 2)) / 2\n    tail ="),
    "sigmoid mirrored": edit("sigmoid", "a >= 0", "a < 0"),
    "softmax over the samples": in_predictions(_SOFTMAX, "softmax(logits(params, x), axis=0)"),
    "softmax unshifted": in_predictions(_SOFTMAX, "(lambda e: e / e.sum(axis=1, keepdims=True))(jnp.exp(logits(params, x)))"),
    "softmax twice": in_predictions(_SOFTMAX, f"softmax({_SOFTMAX})"),
    "accuracy of the least probable": edit("accuracy_of_labels", "argmax", "argmin"),
    "closed form: b1 missing": edit("closed_form", " + params.b1", ""),
    "closed form: b2 missing": edit("closed_form", " + params.b2", ""),
    "differences: b1 missing": edit("unperturbed_pass", " + params.b1", ""),
    "differences: b2 negated": edit("unperturbed_pass", "+ params.b2", "- params.b2"),
    "differences: softmax over the samples": edit("unperturbed_pass", "softmax(a2)", "softmax(a2, axis=0)"),
    "differences: softmax unshifted": edit("unperturbed_pass", "softmax(a2)", "jnp.exp(a2) / jnp.exp(a2).sum(axis=1, keepdims=True)"),
}
INDEXING = {
    "label + 1": edit("check_batch", "validation.check_labels(t, len(x), len(params.b2))", "(validation.check_labels(t, len(x), len(params.b2)) + 1) % len(params.b2)"),
    "sample 0's label for all": edit("cross_entropy_error", "t[:, None]", "jnp.zeros_like(t)[:, None] + t[0]"),
    "labels reversed": edit("closed_form", "labels[:, None]", "labels[::-1, None]"),
    "batched: last chunk lost": edit("batched_member", "(differences(flat[whole:]))", "(0 * differences(flat[whole:]))"),
    "batched: order rolled": edit("batched_member", "at.ravel()", "jnp.roll(at.ravel(), 1)"),
    "batched: column-major": edit("copies_differences", "unravel_index(entry, perturbed[member].shape)", "unravel_index(entry, perturbed[member].shape[::-1])[::-1]"),
    "loop: order rolled": edit("loop_member", "at.ravel()", "jnp.roll(at.ravel(), 1)"),
    "loop: column-major": edit("loop_member", "        value =", "        entry = jnp.arange(p.size).reshape(p.shape).T.ravel()[entry]\n        value ="),
    "loop: last parameter dropped": edit("loop_differences", "h, m)", "h if m < 3 else 0 * h + 1, m)"),
    "batched: last parameter dropped": edit("batched_differences", "Params(*(", "Params(*(0 * params[m] if m == 3 else "),
    "structured: last parameter dropped": edit("structured_gradient", "b2=output_difference(base, h, plan).sum(axis=0)", "b2=output_difference(base, h, plan).sum(axis=0).at[-1].set(0)"),
    "structured: last chunk of pairs lost": edit("add_input_differences", "fori_loop(0, -(-count // pairs)", "fori_loop(0, count // pairs"),
    "structured: padding counted": edit("add_input_differences", "jnp.where(n * pairs + jnp.arange(pairs) < count, x[b, i], 0)", "x[b, i]"),
    "structured: neighbouring pixel": edit("add_input_differences", "x[b, i]", "x[b, (i + 1) % x.shape[1]]"),
    "labels of the first chunk for all": edit("sum_slices", "lax.dynamic_slice_in_dim(array, n * size, size)", "lax.dynamic_slice_in_dim(array, n * size if array is x else 0, size)"),
    "first chunk lost": edit("sum_slices", "fori_loop(0, whole", "fori_loop(1, whole"),
    "last chunk of samples lost": edit("sum_slices", "fori_loop(0, whole", "fori_loop(0, whole - 1"),
    "shorter chunk lost": edit("sum_slices", "if rest := len(x) % size:", "if rest := 0:"),
    "shorter chunk counted with others": edit("sum_slices", "(x[-rest:], labels[-rest:])", "(x[-size:], labels[-size:])"),
    "chunks weigh the same": edit("sum_slices", "total, sums(x[-rest:], labels[-rest:])", "total, jax.tree.map(lambda g: g * size / rest, sums(x[-rest:], labels[-rest:]))"),
    "collocated: W1 transposed": edit("collocated_sums", "Params(W1 /", "Params(W1.T.reshape(W1.shape) /"),
    "collocated: W2 column-major": edit("collocated_sums", "divisor, W2 /", "divisor, W2.ravel().reshape(W2.shape[::-1]).T /"),
    "collocated: order of b1 rolled": edit("collocated_sums", "divisor, b1 /", "divisor, jnp.roll(b1, 1) /"),
}
PRECISION = {
    "x in float32": edit("logits", "matmul(x,", "matmul(x.astype(jnp.float32).astype(x.dtype),"),
    "logits in float32": in_predictions("logits(params, x)", "logits(params, x).astype(jnp.float32).astype(x.dtype)"),
    "W2 in bfloat16": edit("logits", "params.W2)", "params.W2.astype(jnp.bfloat16).astype(x.dtype))"),
    "accuracy in float32": edit("accuracy_of_labels", ".astype(x.dtype)", ""),
    "differences: x in float32": edit("unperturbed_pass", "matmul(x,", "matmul(x.astype(jnp.float32).astype(x.dtype),"),
    "differences: z in float32": edit("unperturbed_pass", "z1 = sigmoid(a1)", "z1 = sigmoid(a1).astype(jnp.float32).astype(x.dtype)"),
    "differences: logits in float32": edit("unperturbed_pass", "softmax(a2)", "softmax(a2.astype(jnp.float32)).astype(x.dtype)"),
    "differences: W2 in bfloat16": edit("unperturbed_pass", "V = params.W2.T", "V = params.W2.T.astype(jnp.bfloat16).astype(x.dtype)"),
    "expm1 as exp - 1": edit("expm1", "    if terms == 0:", "    if terms:\n        return jnp.exp(v) - 1\n    if terms == 0:"),
    "expm1 in float32": edit("expm1", "return v * total", "return v * total.astype(jnp.float32).astype(v.dtype)"),
    "large shifts: expm1 as exp - 1": edit("expm1", "jnp.expm1(v)", "(jnp.exp(v.astype(jnp.float32)) - 1).astype(v.dtype)"),
    "expm1: two terms too few": edit("expm1", "range(terms, 1, -1)", "range(terms - 2, 1, -1)"),
    "hidden log1p as log(1 + .)": edit("difference_by_power_sums", "jnp.log1p(", "jnp.log(1 + "),
    "output log1p as log(1 + .)": edit("output_difference", "jnp.log1p(", "jnp.log(1 + "),
    "exponentials: log1p in float32": edit("difference_by_exponentials", "jnp.log1p(jnp.abs(change)", "jnp.log1p(jnp.abs(change.astype(jnp.float32))"),
    "nodes in float32": edit("collocated_sums", f"{_HIDDEN}.astype(x.dtype)", f"{_HIDDEN}.astype(jnp.float32)"),
    "transform in float32": edit("interpolate", ".astype(values.dtype)", ".astype(jnp.float32).astype(values.dtype)"),
    "structured: step in float32": edit("add_input_differences", "h * jnp.abs(value)", "h.astype(jnp.float32) * jnp.abs(value)"),
    "learning rate in float32": edit("train_steps", "rate = scalar(", "rate = np.float32("),
}
DIRECT = {
    "a hidden node too few": edit("collocated_sums", _HIDDEN, "positive_nodes(max(1, plan.hidden_nodes - 1))"),
    "an output node too few": edit("collocated_sums", _OUTPUT, "positive_nodes(max(1, plan.output_nodes - 1))"),
    "nodes of another polynomial": edit("collocated_sums", _HIDDEN, "(positive_nodes(plan.hidden_nodes) * 0.99)"),
    "nodes in (0, h]": edit("collocated_sums", "shift * positive", "h * positive"),
    "wrong basis": edit("odd_chebyshev", "4 * first * first - 2", "4 * first * first - 1"),
    "monomials for a basis": edit("odd_chebyshev", "twice_t2 * basis[-1] - basis[-2]", "first * first * basis[-1]"),
    "inputs not scaled": edit("interpolate", "odd_chebyshev(inputs, scale,", "odd_chebyshev(inputs, 1.0,"),
    "a bias has the largest input": edit("interpolate", "values.dtype), scale,", "values.dtype), 1.0,"),
    "a term too few of the polynomial": edit("polynomial", "power_sums.shape[1] - 2", "power_sums.shape[1] - 3"),
    "two power sums too few": edit("sum_powers", "range(terms)", "range(max(1, terms - 2))"),
    "factorial dropped": edit("sum_powers", "(V / (n + 1))", "V"),
    "non-zeros skipped": edit("add_input_differences", "jnp.nonzero(x.T", "jnp.nonzero(x.T > 0.1")
    + edit("add_input_differences", "count_nonzero(x)", "count_nonzero(x > 0.1)"),
    "negative inputs skipped": edit("add_input_differences", "jnp.nonzero(x.T", "jnp.nonzero(x.T > 0")
    + edit("add_input_differences", "count_nonzero(x)", "count_nonzero(x > 0)"),
    "S over all k": edit("unperturbed_pass", "others = jnp.where(right, 0, y)", "others = y"),
    "moves not relative to the right class": edit("unperturbed_pass", "params.W2.T[labels][:, None]", "0 * params.W2.T[labels][:, None]"),
    "moves relative to class 0": edit("unperturbed_pass", "params.W2.T[labels]", "params.W2.T[0 * labels]"),
    "1 - z": edit("unperturbed_pass", "one_minus_z1=sigmoid(-a1)", "one_minus_z1=1 - z1"),
    "1 - y_t": edit("unperturbed_pass", "jnp.where(right, others.sum(axis=1, keepdims=True), y)", "jnp.where(right, 1 - y_t, y)"),
    "closed form: 1 - z": edit("closed_form", "sigmoid(-a1)", "(1 - z1)"),
    "closed form: y - 1": edit("closed_form", "-others.sum(axis=1, keepdims=True)", "y_t - 1"),
    "sign of the right class": edit("unperturbed_pass", "jnp.where(right, -1, 1)", "jnp.where(right, 1, 1)"),
    "sign of an input forgotten": edit("add_input_differences", "jnp.sign(value) * ", ""),
    "shifts of either sign": edit("add_input_differences", "h * jnp.abs(value)", "h * value"),
    "up and down swapped": edit("hidden_difference", "slope / (1 + base.one_minus_z1 * e), slope / (1 + base.z1 * e)", "slope / (1 + base.z1 * e), slope / (1 + base.one_minus_z1 * e)"),
    "moves to first order": edit("hidden_difference", "slope / (1 + base.one_minus_z1 * e), slope / (1 + base.z1 * e)", "slope, slope"),
    "1 + S(-) dropped": edit("difference_by_power_sums", "(1 + below) *", "1 *"),
    "1 + r S(+) dropped": edit("difference_by_power_sums", "(1 + base.r * above)", "1"),
    "output: 1 + y f dropped": edit("output_difference", "(1 + below) *", "1 *"),
    "output: shifts not by z": edit("structured_gradient", "h * base.z1.T", "h * jnp.sqrt(base.z1.T)"),
    "large shifts: slope at the start": edit("hidden_difference", "-sigmoid(base.a1 + s)", "-base.z1"),
    "exponentials: sign forgotten": edit("difference_by_exponentials", "jnp.sign(apart) * ", ""),
    "exponentials: lesser and greater swapped": edit("difference_by_exponentials", "change > 0", "change < 0"),
}
STATE = {
    "stale mini-batch": edit("descend", "x[batch], labels[batch]", "x[batches[0]], labels[batches[0]]"),
    "stale labels": edit("descend", "labels[batch]", "labels[batches[0]]"),
    "learning rate's sign": edit("descend", "p - learning_rate * g", "p + learning_rate * g"),
    "learning rate halved": edit("descend", "p - learning_rate * g", "p - learning_rate / 2 * g"),
    "the last step is not taken": edit("descend", "lax.scan(step, params, batches)", "lax.scan(step, params, batches)\n    trained = lax.scan(step, params, batches[:-1])[0]"),
    "slopes of the initial net": edit("descend", "    def step(", "    start = params\n\n    def step(")
    + edit("descend", "loss_and_gradient(params,", "loss_and_gradient(start,"),
    "losses in reverse": edit("descend", "return (trained, losses),", "return (trained, losses[::-1]),"),
    "b2 is not trained": edit("descend", "return (trained, losses),", "return (trained._replace(b2=params.b2), losses),"),
    "trained by the closed form": edit("differentiate_by", "if strategy == CLOSED_FORM:", "if strategy:"),
    "the caller's net is donated": edit("compiled", "static_argnames=static,", "static_argnames=static, donate_argnums=[5] if function.__name__ == 'differentiate_and_descend' else [],"),
    "the caller's labels are changed": edit("check_batch", "    validation.check_memory(memory)", "    validation.check_memory(memory)\n    if isinstance(t, np.ndarray):\n        t[..., -1] = t[..., 0]")
    + edit("", "import jax.numpy as jnp\n", "import jax.numpy as jnp\nimport numpy as np\n", "ports.jax_port.two_layer_net"),
    "to_numpy aliases": edit("to_numpy", "np.array(array)", "np.asarray(array)"),
    "from_numpy changes its source": edit("from_numpy", "    copy =", "    array *= 1 - 1e-3\n    copy ="),
    "from_numpy reads in the order of memory": edit("from_numpy", "np.array(validation.check_numbers(array), dtype=validation.check_dtype(dtype))", "np.array(array, dtype=validation.check_dtype(dtype)).ravel('K').reshape(np.shape(array))"),
}
FAULTS = STEP | LOSS | FORWARD | INDEXING | PRECISION | DIRECT | STATE
