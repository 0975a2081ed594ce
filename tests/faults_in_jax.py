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
    "collocated: sum for mean of the loss": edit("collocated_gradient", "return loss / len(x),", "return loss,"),
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
    "softmax over the samples": in_predictions(_SOFTMAX, "softmax(logits(params, x), axis=0)"),
    "softmax unshifted": in_predictions(_SOFTMAX, "(lambda e: e / e.sum(axis=1, keepdims=True))(jnp.exp(logits(params, x)))"),
    "softmax twice": in_predictions(_SOFTMAX, f"softmax({_SOFTMAX})"),
    "accuracy of the least probable": edit("loss_and_accuracy", "argmax", "argmin"),
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
    "batched: last chunk lost": edit("batched_member", "lax.map(differences, chunks)", "lax.map(differences, chunks).at[-1].set(0)"),
    "batched: order rolled": edit("batched_member", "at.ravel()", "jnp.roll(at.ravel(), 1)"),
    "batched: column-major": edit("copies_differences", "unravel_index(jnp.tile(entry, 2), perturbed[member].shape)", "unravel_index(jnp.tile(entry, 2), perturbed[member].shape[::-1])[::-1]"),
    "loop: order rolled": edit("loop_member", "at.ravel()", "jnp.roll(at.ravel(), 1)"),
    "loop: column-major": edit("loop_member", "        value =", "        entry = jnp.arange(p.size).reshape(p.shape).T.ravel()[entry]\n        value ="),
    "loop: last parameter dropped": edit("loop_differences", "h, m)", "h if m < 3 else 0 * h + 1, m)"),
    "batched: last parameter dropped": edit("batched_differences", "Params(*(", "Params(*(0 * params[m] if m == 3 else "),
    "structured: last chunk of pairs lost": edit("add_input_differences", "fori_loop(0, -(-count // pairs)", "fori_loop(0, count // pairs"),
    "structured: places counted from 1": edit("add_input_differences", "count_up_to - 1", "count_up_to"),
    "structured: padding counted": edit("add_input_differences", "jnp.where(padding, 0, take(values, at))", "take(values, at)"),
    "structured: neighbouring pixel": edit("add_input_differences", "take(values, at)", "take(values, (at + len(x)) % x.size)"),
    "labels of the first chunk for all": edit("sum_slices", "lax.dynamic_slice_in_dim(array, start, size)", "lax.dynamic_slice_in_dim(array, start if array is x else 0, size)"),
    "first chunk lost": edit("sum_slices", "fori_loop(0, count", "fori_loop(1, count"),
    "last chunk of samples lost": edit("sum_slices", "fori_loop(0, count", "fori_loop(0, count - 1"),
    "last chunk of samples lost where it is shorter": edit("sum_slices", "fori_loop(0, count", "fori_loop(0, len(x) // size"),
    "samples of two chunks counted twice": edit("sum_slices", "jnp.where(counted, NO_SAMPLE, part_labels)", "part_labels"),
    "one sample of two chunks counted twice": edit("sum_slices", "< n * size", "< n * size - 1"),
    "first sample of a chunk not counted": edit("sum_slices", "< n * size", "<= n * size"),
    "chunks weigh the same": edit("sum_slices", "sums(part_x, jnp.where(counted, NO_SAMPLE, part_labels))", "jax.tree.map(lambda g: g * size / (~counted).sum(), sums(part_x, jnp.where(counted, NO_SAMPLE, part_labels)))"),
    "loss of samples counted twice": edit("unperturbed_pass", "jnp.where(labels[:, None] == NO_SAMPLE, 0, -jnp.log(y_t + DELTA))", "-jnp.log(y_t + DELTA)"),
    "exponentials: samples of two chunks counted twice": edit("halved_spread", "jnp.where(labels[:, None, None] == NO_SAMPLE, 0, half - take(half, labels)[:, None])", "half - take(half, labels)[:, None]"),
    "collocated: W1 transposed": edit("collocated_sums", "Params(W1,", "Params(W1.T.reshape(W1.shape),"),
    "collocated: W2 column-major": edit("collocated_sums", "b1, W2,", "b1, W2.ravel().reshape(W2.shape[::-1]).T,"),
    "collocated: order of b1 rolled": edit("collocated_sums", "(W1, b1,", "(W1, jnp.roll(b1, 1),"),
}
PRECISION = {
    "x in float32": edit("logits", "matmul(x,", "matmul(x.astype(jnp.float32).astype(x.dtype),"),
    "logits in float32": in_predictions("logits(params, x)", "logits(params, x).astype(jnp.float32).astype(x.dtype)"),
    "W2 in bfloat16": edit("logits", "params.W2)", "params.W2.astype(jnp.bfloat16).astype(x.dtype))"),
    "accuracy in float32": edit("loss_and_accuracy", ".astype(x.dtype)", ""),
    "differences: x in float32": edit("unperturbed_pass", "matmul(x,", "matmul(x.astype(jnp.float32).astype(x.dtype),"),
    "differences: logits in float32": edit("unperturbed_pass", "softmax(a2)", "softmax(a2.astype(jnp.float32)).astype(x.dtype)"),
    "exponentials: log1p in float32": edit("difference_by_exponentials", "jnp.log1p(jnp.abs(change)", "jnp.log1p(jnp.abs(change.astype(jnp.float32))"),
    "transform in float32": edit("interpolate", ".astype(values.dtype)", ".astype(jnp.float32).astype(values.dtype)"),
    "learning rate in float32": edit("train_steps", "rate = scalar(", "rate = np.float32("),
}
DIRECT = {
    "two power sums too few": edit("sum_powers", "range(terms)", "range(max(1, terms - 2))"),
    "non-zeros skipped": edit("add_input_differences", "values != 0", "values > 0.1"),
    "negative inputs skipped": edit("add_input_differences", "values != 0", "values > 0"),
    "closed form: y - 1": edit("closed_form", "-others.sum(axis=1, keepdims=True)", "y_t - 1"),
    "sign of an input forgotten": edit("add_input_differences", "jnp.sign(value) * ", ""),
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
    "labels are shared with the caller": edit("check_batch", "jax.device_put(validation.check_labels(t, len(x), len(params.b2)), x.device)", "jax.device_put(t if type(t) is np.ndarray and t.ndim == 1 and t.dtype == np.int64 else validation.check_labels(t, len(x), len(params.b2)), x.device)"),
    "to_numpy aliases": edit("to_numpy", "np.array(array)", "np.asarray(array)"),
    "from_numpy changes its source": edit("from_numpy", "    copy =", "    array *= 1 - 1e-3\n    copy ="),
    "from_numpy reads in the order of memory": edit("from_numpy", "np.array(validation.check_numbers(array), dtype=validation.check_dtype(dtype))", "np.array(array, dtype=validation.check_dtype(dtype)).ravel('K').reshape(np.shape(array))"),
}
KERNELS = {
    'structured: no half': edit('structured_gradient', 'scale / h / len(x), 1 / len(x)', '2 * scale / h / len(x), 2 / len(x)'),
    'structured: negated': edit('structured_gradient', 'scale / h / len(x), 1 / len(x)', '-scale / h / len(x), -1 / len(x)'),
    'structured: B - 1': edit('structured_gradient', 'scale / h / len(x), 1 / len(x)', 'scale / h / (len(x) - 1), 1 / (len(x) - 1)'),
    'structured: biases moved by 2 h': edit('with_bias', 'constant_values=1', 'constant_values=2'),
    'structured: the bias first': edit('structured_gradient', 'hidden[:-1], hidden[-1]', 'hidden[1:], hidden[0]'),
    'structured: the last hidden unit for b2': edit('structured_gradient', 'output[-1])', 'output[-2])'),
    'structured: outputs moved by z1 squared': edit('structured_gradient', 'with_bias(base.z1)', 'with_bias(base.z1**2)'),
    'structured: step in float32': edit('add_input_differences', 'factor * jnp.abs(value)', 'factor * jnp.abs(value).astype(jnp.float32).astype(value.dtype)'),
    'no more pairs than 15 bits count': edit('add_input_differences', '-(-x.size // pairs)', '-(-min(x.size, 2**15) // pairs)'),
    'shifts of either sign': edit('add_input_differences', 'factor * jnp.abs(value)', 'factor * value'),
    'collocated: sum for mean': edit('collocated_sums', 'nodes.hidden_matrix / samples', 'nodes.hidden_matrix'),
    'collocated: B - 1': edit('collocated_sums', 'nodes.hidden_matrix / samples', 'nodes.hidden_matrix / (samples - 1)'),
    'tanh': edit('sigmoids', '    tail =', '    return jnp.tanh(a), jnp.tanh(-a)\n    tail ='),
    'relu': edit('sigmoids', '    tail =', '    return jnp.maximum(a, 0), jnp.maximum(-a, 0)\n    tail ='),
    'sigmoid by tanh': edit('sigmoids', '    tail =', '    return (1 + jnp.tanh(a / 2)) / 2, (1 - jnp.tanh(a / 2)) / 2\n    tail ='),
    'sigmoid mirrored': edit('sigmoids', 'a >= 0', 'a < 0'),
    'differences: z in float32': edit('unperturbed_pass', 'sigmoids(a1 := matmul(x, params.W1) + params.b1)', 'sigmoids(a1 := matmul(x, params.W1) + params.b1)\n    z1 = z1.astype(jnp.float32).astype(x.dtype)'),
    'expm1 as exp - 1': edit('make_shift', 'scaled_expm1(jnp.stack((v, -v)), scale, terms)', '(jnp.exp(scale * jnp.stack((v, -v))) - 1) / scale'),
    'expm1: two terms too few': edit('scaled_expm1', 'range(terms, 1, -1)', 'range(terms - 2, 1, -1)'),
    'arctanh: a term too few': edit('scaled_arctanh', 'range(terms, 1, -1)', 'range(terms - 1, 1, -1)'),
    'arctanh: other coefficients': edit('scaled_arctanh', '1 / (2 * n - 1)', '1 / (2 * n)'),
    'a hidden node too few': edit('make_nodes', 'constant(positive_nodes(plan.hidden_nodes))', 'constant(positive_nodes(max(1, plan.hidden_nodes - 1)))') + edit('make_nodes', 'interpolation_matrix(plan.hidden_nodes)', 'interpolation_matrix(max(1, plan.hidden_nodes - 1))'),
    'an output node too few': edit('make_nodes', 'constant(positive_nodes(plan.output_nodes))', 'constant(positive_nodes(max(1, plan.output_nodes - 1)))') + edit('make_nodes', 'interpolation_matrix(plan.output_nodes)', 'interpolation_matrix(max(1, plan.output_nodes - 1))'),
    'nodes of another polynomial': edit('make_nodes', 'positive_nodes(plan.hidden_nodes)', '(0.99 * positive_nodes(plan.hidden_nodes))'),
    'nodes in (0, h]': edit('make_nodes', 'hidden = shift / scale *', 'hidden = h / scale *'),
    'wrong basis': edit('odd_basis', '4 * v * v - 2', '4 * v * v - 1'),
    'inputs never scaled': edit('make_nodes', 'None if plan.unit_inputs else h / shift', 'None'),
    'other nodes not weighed': edit('combine', 'factor * array', 'array'),
    'inputs not scaled': edit('interpolate', 'inputs if factor is None else inputs * factor', 'inputs'),
    'a bias has the largest input': edit('interpolate', 'one if factor is None else factor', 'one'),
    'the last coefficient dropped': edit('interpolate', '[1:]\n        products', '[1:]\n        basis[-1] *= 0\n        products'),
    'always float32': edit('narrow_or_wide', 'lax.cond(fits,', 'lax.cond(True,') + edit('interpolate', 'if not mixed or weights.size < MIXED_LEAST', 'if False'),
    'float32 where the plan says no': edit('interpolate', 'if not mixed or weights.size < MIXED_LEAST', 'if False'),
    "float32's range is not watched": edit('narrow_or_wide', 'lax.cond(fits,', 'lax.cond(True,'),
    "float32's range is not watched in training": edit('narrow_or_nan', 'where(fits,', 'where(True,'),
    'NaN where float32 does not hold': edit('train_steps', 'if not guarded and not finite', 'if False'),
    'the guard is inverted': edit('narrow_or_wide', 'lax.cond(fits,', 'lax.cond(~fits,'),
    'a power too many': edit('multiply_powers', 'power = power * (scaled / (r + 2))', 'power = power * scaled * (scaled / (r + 2))'),
    'factorial dropped': edit('multiply_powers', '(scaled / (r + 2))', 'scaled'),
    'factorial of V dropped': edit('sum_powers', '(scale * V / (n + 2))', '(scale * V)'),
    'powers of V unscaled': edit('sum_powers', '(scale * V / (n + 2))', '(V / (n + 2))'),
    "the binomial's sign": edit('multiply_powers', '-take(scaled, labels)', 'take(scaled, labels)'),
    'a term too few of the polynomial': edit('polynomial', 'power_sums[-1] * dz', 'power_sums[-1] * 0'),
    'moves relative to class 0': edit('sum_powers', 'take(W2.T, labels)[:, None]', 'W2.T[0]'),
    'exponentials: moves relative to class 0': edit('halved_spread', 'take(half, labels)[:, None]', 'half[0]'),
    '1 - z': edit('unperturbed_pass', 'one_minus_z1=one_minus_z1', 'one_minus_z1=1 - z1'),
    '1 - y_t': edit('unperturbed_pass', 'jnp.where(right, 0, y).sum(axis=1, keepdims=True)', '1 - y_t'),
    'closed form: 1 - z': edit('closed_form', '* z1 * one_minus_z1', '* z1 * (1 - z1)'),
    'sign of the right class': edit('output_difference', '-differences, differences', 'differences, differences'),
    'up and down swapped': edit('unit_moves', '1 / shift.e)', '1 / shift.e[::-1])'),
    'moves to first order': edit('unit_moves', '(scale * base.z1 + 1 / shift.e)', '(1 / shift.e)'),
    'z for 1 - z in the moves': edit('unit_moves', 'scale * base.z1 + 1', 'scale * base.one_minus_z1 + 1'),
    'always linear': edit('hidden_difference', 'if plan.linear:', 'if plan.terms:'),
    'logits are always linear': edit('output_difference', 'if not plan.output_linear:', 'if False:'),
    'the denominator dropped': edit('hidden_difference', '(1 + scale * mean)', '1'),
    'the product of S(+) and S(-) negated': edit('hidden_difference', '+ scale * base.r * above * below', '- scale * base.r * above * below'),
    'large shifts: slope at the start': edit('unit_moves', '-sigmoid(base.a1 + s)', '-base.z1'),
}
FAULTS = KERNELS | STEP | LOSS | FORWARD | INDEXING | PRECISION | DIRECT | STATE
