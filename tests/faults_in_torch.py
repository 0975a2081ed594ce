"""Faults of the PyTorch port, each an edit of its source: function, what stands there, what is put in its place.

Equivalent, and so left out:

* sigmoid as 1 / (1 + exp(-a)): exp overflows to infinity where the sigmoid underflows to 0;
* `true_float32` taken away: on the CPU float32 products are float32 unless the caller has asked for less, and a test
  asks for less;
* copies of W1 laid out (P, I, H) in memory, and any other order of the same numbers.
"""

from wrong_ports import edit

_CHECKED = "    validation.check_memory(memory)\n    magnitudes"
_H = "    h = check_h(h)"
_SOFTMAX = "torch.softmax(logits(params, x), dim=0)"
_INNER = "torch.softmax(a2.T, dim=0).T"
_CLOSED_FORM = "    from ports.torch_port.two_layer_net import closed_form\n    return closed_form(params, x, labels, len(x))[1]"
_DELTA = "from reference.functions import DELTA\n"
_HIDDEN, _OUTPUT = "positive_nodes(plan.hidden_nodes)", "positive_nodes(plan.output_nodes)"

STEP = {
    "loop: forward differences": edit("loop_member", "torch.sub(value, h, ", "torch.sub(value, 0, ")
    + edit("loop_member", "(2 * h)", "(h)"),
    "loop: backward differences": edit("loop_member", "torch.add(value, h, ", "torch.add(value, 0, ")
    + edit("loop_member", "(2 * h)", "(h)"),
    "loop: no half": edit("loop_member", "(2 * h)", "(h)"),
    "loop: negated": edit("loop_member", "above.sub_(below)", "below.sub_(above)"),
    "loop: step relative to |p|": edit("loop_member", "torch.add(value, h,", "torch.add(value, h * value.abs(),")
    + edit("loop_member", "torch.sub(value, h,", "torch.sub(value, h * value.abs(),")
    + edit("loop_member", ".div_(2 * h)", ".div_(2 * h * p.abs().view(-1)[at.ravel()])"),
    "loop: divisor in float32": edit("loop_member", "(2 * h)", "(2 * float(np.float32(h)))"),
    "loop: move in float32": edit("loop_member", "torch.add(value, h,", "torch.add(value, float(np.float32(h)),"),
    "loop: five-point formula": edit("loop_member", "        parameter.copy_(value)", "        torch.add(value, 2 * h, out=parameter)\n        above[n] = 8 * above[n] - loss_of_labels(moved, x, labels)\n        torch.sub(value, 2 * h, out=parameter)\n        below[n] = 8 * below[n] - loss_of_labels(moved, x, labels)\n        parameter.copy_(value)")
    + edit("loop_member", "(2 * h)", "(12 * h)"),
    "batched: forward differences": edit("copies_differences", "value - h", "value") + edit("copies_differences", "(2 * h)", "(h)"),
    "batched: backward differences": edit("copies_differences", "value + h", "value") + edit("copies_differences", "(2 * h)", "(h)"),
    "batched: no half": edit("copies_differences", "(2 * h)", "(h)"),
    "batched: negated": edit("copies_differences", "above.sub_(below)", "below.sub_(above)"),
    "batched: step in float32": edit("copies_differences", "value + h", "value + float(np.float32(h))"),
    "loop: h ignored": edit("loop", _H, "    h = check_h(1e-4)"),
    "batched: h doubled": edit("batched", _H, "    h = 2 * check_h(h)"),
    "batched: h ten times": edit("batched", _H, "    h = 10 * check_h(h)"),
    "structured: h halved": edit("structured", _H, "    h = check_h(h) / 2"),
    "structured: h ten times": edit("structured", _H, "    h = check_h(10 * h) if h < 0.1 else h"),
    "structured: closed form": edit("structured", "    return structured_gradient(", f"{_CLOSED_FORM} or structured_gradient("),
    "collocated: h doubled": edit("collocated", _H, "    h = 2 * check_h(h)"),
    "collocated: h ignored": edit("collocated", _H, "    h = check_h(1e-4)"),
    "collocated: closed form": edit("collocated", "    return collocated_gradient(", f"{_CLOSED_FORM} or collocated_gradient("),
    "h ignored in training": edit("check_training", "validation.check_h(h)", "validation.check_h(1e-4)"),
    "loop: h ignored in training": edit("differentiate_by", "(*net, h=h, memory", "(*net, memory"),
    "training's default h is 1e-5": edit("train_steps", "h: float = H", "h: float = 1e-5"),
    **{
        f"{name}: default h is 1e-3": edit(name, "h: float = H", "h: float = 1e-3")
        for name in ("loop", "batched", "structured", "collocated")
    },
}
LOSS = {
    "DELTA dropped": edit("cross_entropy", "y_t + DELTA", "y_t"),
    "DELTA is 1e-8": edit("", _DELTA, "DELTA = 1e-8\n", "ports.torch_port.two_layer_net")
    + edit("", _DELTA, "DELTA = 1e-8\n", "ports.torch_port.loss_difference"),
    "clipped at DELTA": edit("cross_entropy", "y_t + DELTA", "y_t.clamp(min=DELTA)"),
    "base 2": edit("cross_entropy", "torch.log(", "torch.log2("),
    "sum for mean": edit("cross_entropy", ".mean(dim=-1)", ".sum(dim=-1)"),
    "B - 1": edit("cross_entropy", ".mean(dim=-1)", ".sum(dim=-1) / (y_t.shape[-1] - 1)"),
    "sign": edit("cross_entropy", "-torch.log", "torch.log"),
    "closed form: q dropped": edit("closed_form", "y_t / ((y_t + scalar(DELTA, x)) * samples)", "y_t / (y_t * samples)"),
    "closed form: B - 1": edit("closed_form", "* samples", "* (samples - 1)"),
    "exponentials: DELTA is 1e-8": edit("difference_by_exponentials", "math.log(DELTA)", "math.log(1e-8)"),
}
FORWARD = {
    "b1 missing": edit("logits", " + params.b1[:, None]", ""),
    "b1 negated": edit("logits", "+ params.b1", "- params.b1"),
    "b2 missing": edit("logits", " + params.b2[:, None]", ""),
    "b2 negated": edit("logits", "+ params.b2", "- params.b2"),
    "tanh": edit("logits", ".sigmoid_()", ".tanh_()"),
    "hard sigmoid": edit("logits", "(params.W1.T @ x.T + params.b1[:, None]).sigmoid_()", "torch.nn.functional.hardsigmoid(params.W1.T @ x.T + params.b1[:, None])"),
    "relu": edit("logits", ".sigmoid_()", ".relu_()"),
    "sigmoid by tanh": edit("forward_pass", "z1 = torch.sigmoid(a1)", "z1 = (1 + torch.tanh(a1 / 2)) / 2"),
    "softmax over the samples": edit("probabilities_of_labels", "dim=0", "dim=1"),
    "predictions over the samples": edit("predict", "dim=0", "dim=1"),
    "softmax unshifted": edit("probabilities_of_labels", _SOFTMAX, "(lambda e: e / e.sum(0))(logits(params, x).exp())"),
    "softmax twice": edit("probabilities_of_labels", _SOFTMAX, f"torch.softmax({_SOFTMAX}, dim=0)"),
    "predictions transposed": edit("predict", ".T.contiguous()", ""),
    "accuracy of the least probable": edit("accuracy", "argmax", "argmin"),
    "differences: b1 missing": edit("forward_pass", "torch.addmm(params.b1, x, params.W1)", "x @ params.W1"),
    "differences: b2 negated": edit("forward_pass", "torch.addmm(params.b2, z1, params.W2)", "torch.addmm(-params.b2, z1, params.W2)"),
    "differences: softmax over the samples": edit("forward_pass", _INNER, "torch.softmax(a2.T, dim=1).T"),
    "differences: softmax unshifted": edit("forward_pass", _INNER, "a2.exp() / a2.exp().sum(1, keepdim=True)"),
    "differences: softmax twice": edit("forward_pass", _INNER, f"torch.softmax({_INNER}, dim=1)"),
}
INDEXING = {
    "label + 1": edit("check_batch", "from_numpy(labels)", "from_numpy((labels + 1) % len(params.b2))"),
    "sample 0's label for all": edit("probabilities_of_labels", "labels[None]", "labels[None] * 0 + labels[0]"),
    "labels reversed": edit("output_delta", "labels.unsqueeze(1)", "labels.flip(0).unsqueeze(1)"),
    "loop: last parameter dropped": edit("loop_member", "return above", "above[-1] = below[-1]\n    return above"),
    "loop: order rolled": edit("loop_member", "enumerate(at.flat)", "enumerate(np.roll(at, 1).flat)"),
    "batched: last chunk lost": edit("batched_member", "in slices(at.size, size)", "in [*slices(at.size, size)][:-1]")
    + edit("batched_member", "p.new_empty", "p.new_zeros"),
    "batched: order rolled": edit("batched_member", "at.flat[part]", "np.roll(at, 1).flat[part]"),
    "batched: column-major": edit("batched_member", "np.unravel_index(at.flat[part], p.shape)", "np.unravel_index(at.flat[part], p.shape[::-1])[::-1]"),
    "structured: last parameter dropped": edit("structured_gradient", "    return torch.cat", "    differences.b2[-1] = 0\n    return torch.cat"),
    "structured: last chunk of pairs lost": edit("add_input_differences", "nonzero().split(pairs)", "nonzero().split(pairs)[:-1]"),
    "structured: neighbouring input": edit("add_input_differences", "x[b, i]", "x[b, i - 1]"),
    "structured: sums of an input lost": edit("add_rows", "total.index_add_(0, i, rows)", "total[i] += rows"),
    "collocated: last chunk lost": edit("collocated_gradient", "slices(len(x), size)]", "slices(len(x), size)][:-1]"),
    "shorter chunk lost": edit("slices", "range(0, length, size)", "range(0, max(1, length - size + 1), size)", "reference.collocation"),
    "collocated: labels of the first chunk for all": edit("collocated_gradient", "labels[rows]", "labels[:size][: len(x[rows])]"),
    "structured: labels of the first chunk for all": edit("structured_gradient", "unperturbed_pass(params, x[rows], labels[rows]", "unperturbed_pass(params, x[rows], labels[: rows.stop - rows.start]"),
    "collocated: W1 transposed": edit("collocated_sums", "Params(W1,", "Params(W1.T.reshape(W1.shape),"),
    "collocated: order of b1 rolled": edit("collocated_sums", "Params(W1, b1", "Params(W1, b1.roll(1)"),
}
PRECISION = {
    "x in float32": edit("logits", "x.T", "x.T.float().to(x.dtype)"),
    "logits in float32": edit("probabilities_of_labels", "logits(params, x)", "logits(params, x).float().to(x.dtype)"),
    "W2 in bfloat16": edit("logits", "params.W2.T @", "params.W2.T.bfloat16().to(x.dtype) @"),
    "accuracy in float32": edit("accuracy", ".to(x.dtype)", ".float()"),
    "loss in float32": edit("cross_entropy", "torch.log(y_t + DELTA)", "torch.log(y_t.float() + DELTA).to(y_t.dtype)"),
    "differences: x in float32": edit("forward_pass", "params.b1, x,", "params.b1, x.float().to(x.dtype),"),
    "differences: z in float32": edit("forward_pass", "torch.sigmoid(a1)\n", "torch.sigmoid(a1).float().to(x.dtype)\n"),
    "differences: W2 in bfloat16": edit("unperturbed_pass", "delta, params.W2,", "delta, params.W2.bfloat16().to(x.dtype),"),
    "closed form: delta in float32": edit("closed_form", "delta1.sum(0)", "delta1.float().sum(0).to(x.dtype)"),
    "exponentials: log1p in float32": edit("difference_by_exponentials", "torch.log1p(change.abs() * exponent.exp_())", "torch.log1p((change.abs() * exponent.exp_()).float()).to(up.dtype)"),
    "learning rate in float32": edit("descend", "scalar(learning_rate, x)", "scalar(float(np.float32(learning_rate)), x)"),
}
DIRECT = {
    "nodes of another polynomial": edit("make_nodes", _HIDDEN, "(0.99 * positive_nodes(plan.hidden_nodes))"),
    "factorial dropped": edit("polynomial", "value=1 / (n + 1)", "value=1"),
    "non-zeros skipped": edit("add_input_differences", "x.T.nonzero()", "(x.T.abs() > 0.1).nonzero()"),
    "negative inputs skipped": edit("add_input_differences", "x.T.nonzero()", "(x.T > 0).nonzero()"),
    "sign of an input forgotten": edit("add_input_differences", "differences.mul_(value.sign())", "differences"),
    "1 - z": edit("forward_pass", "torch.sigmoid(-a1)", "1 - z1"),
    "1 - y_t": edit("output_delta", "others.sum(1, keepdim=True).neg_()", "y_t - 1"),
    "S over all k": edit("output_delta", "y.scatter(1, column, 0)", "y.clone()"),
    "exponentials: sign forgotten": edit("difference_by_exponentials", ".mul_(apart.sign_())", ""),
    "exponentials: lesser and greater swapped": edit("difference_by_exponentials", "change > 0", "change < 0"),
}
STATE = {
    "loop: parameter left moved": edit("loop_member", "        parameter.copy_(value)\n", ""),
    "batched: parameter left moved": edit("copies_differences", "    moved[nth] = value\n    return", "    return"),
    "loop moves the caller's net": edit("loop_differences", "Params(*(p.clone(memory_format=torch.contiguous_format) for p in params))", "params")
    + edit("loop_member", "        parameter.copy_(value)\n", "        parameter.copy_(value.nextafter(value + 1))\n"),
    "training changes the caller's net": edit("descend", "*(p.clone() for p in params[1:])", "*params[1:]"),
    "the caller's labels are changed": edit("check_batch", _CHECKED, "    if hasattr(t, \"flat\"):\n        t[..., -1] = t[..., 0]\n" + _CHECKED),
    "buffer of the inputs is stale": edit("descend", "x, batch, targets", "x, batches[0], targets"),
    "stale labels": edit("descend", "labels[batches], y_t", "labels[batches[:1]].expand_as(batches), y_t"),
    "learning rate's sign": edit("take_step", "value=-1", "value=1"),
    "learning rate halved": edit("descend", "scalar(learning_rate, x)", "scalar(learning_rate / 2, x)"),
    "slopes of the initial net": edit("descend", "    inputs, rate =", "    initial = Params(*(p.clone() for p in params))\n    inputs, rate =") + edit("descend", "step(loss_and_gradient,", "step(lambda _, *batch: loss_and_gradient(initial, *batch),"),
    "losses in reverse": edit("train_by", "cross_entropy(y_t)", "cross_entropy(y_t).flip(0)"),
    "losses share a buffer": edit("descend", "kept_y_t.copy_(", "y_t.copy_(") + edit("descend", ".view(-1)", ".view(-1).expand_as(y_t)"),
    "b2 is not trained": edit("descend", "    inputs, rate =", "    b2 = params.b2.clone()\n    inputs, rate =") + edit("descend", "W1=W1.contiguous()", "W1=W1.contiguous(), b2=b2"),
    "trained by the closed form": edit("differentiate_by", "if strategy == CLOSED_FORM:", "if True:"),
    "nodes of another batch size": edit("train_by", "indices.shape[1], params", "len(x), params"),
    "to_numpy aliases": edit("to_numpy", ".copy()", ""),
    "from_numpy aliases": edit("from_numpy", "np.array(validation.check_numbers(array), dtype=validation.check_dtype(dtype), order=\"C\")", "np.asarray(array, dtype=validation.check_dtype(dtype))"),
    "from_numpy changes its source": edit("from_numpy", "    copy =", "    array *= 1 - 1e-3\n    copy ="),
    "from_numpy reads in the order of memory": edit("from_numpy", "torch.from_numpy(copy)", "torch.from_numpy(np.asarray(array, dtype).ravel('K').reshape(copy.shape))"),
}
KERNELS = {
    'structured: no half': edit('structured_gradient', 'scale / h / samples, 1 / samples', '2 * scale / h / samples, 2 / samples'),
    'structured: negated': edit('structured_gradient', 'scale / h / samples, 1 / samples', '-scale / h / samples, -1 / samples'),
    'structured: B - 1': edit('structured_gradient', 'scale / h / samples, 1 / samples', 'scale / h / (samples - 1), 1 / (samples - 1)'),
    'collocated: no half': edit('make_nodes', 'scale / h / samples', '2 * scale / h / samples'),
    'collocated: B - 1': edit('make_nodes', 'scale / h / samples', 'scale / h / (samples - 1)'),
    'collocated: sum for mean': edit('make_nodes', 'scale / h / samples', 'scale / h'),
    'differences: DELTA is 1e-8': edit('unperturbed_pass', '0.5 / DELTA', '0.5 / 1e-8'),
    'differences: 1 + rho is rho': edit('unperturbed_pass', 'torch.add(scalar(1, x), half_rho, alpha=2)', '2 * half_rho'),
    'structured: outputs moved by z1 squared': edit('structured_gradient', 'with_bias(base.z1)', 'with_bias(base.z1**2)'),
    'structured: biases moved by 2 h': edit('with_bias', 'value=1', 'value=2'),
    'structured: the bias first': edit('structured_gradient', 'hidden[:-1] * shift, hidden[-1]', 'hidden[1:] * shift, hidden[0]'),
    'structured: the last hidden unit for b2': edit('structured_gradient', 'output[-1]', 'output[-2]'),
    'expm1 as exp - 1': edit('make_shift', 'scaled_expm1(torch.stack((v, -v)), scale, terms)', '(torch.exp(scale * torch.stack((v, -v))) - 1) / scale'),
    'expm1 in float32': edit('make_shift', 'scaled_expm1(torch.stack((v, -v)), scale, terms)', 'scaled_expm1(torch.stack((v, -v)).float(), scale, terms).to(v)'),
    'expm1: two terms too few': edit('scaled_expm1', 'range(terms, 1, -1)', 'range(terms - 2, 1, -1)'),
    'arctanh: a term too few': edit('scaled_arctanh', '    if terms == 1:', '    terms -= 1\n    if terms == 1:'),
    'nodes in float32': edit('make_nodes', 'torch.from_numpy(nodes[:, None, None])', 'torch.from_numpy(nodes[:, None, None]).float()'),
    'structured: step in float32': edit('add_input_differences', 'factor * value.abs()', 'factor * value.abs().float().to(value)'),
    'shifts of either sign': edit('add_input_differences', 'factor * value.abs()', 'factor * value'),
    'a hidden node too few': edit('make_nodes', 'shift / scale * positive_nodes(plan.hidden_nodes)', 'shift / scale * positive_nodes(max(1, plan.hidden_nodes - 1))') + edit('make_nodes', 'interpolation_matrix(plan.hidden_nodes)', 'interpolation_matrix(max(1, plan.hidden_nodes - 1))'),
    'an output node too few': edit('make_nodes', 'on_device(positive_nodes(plan.output_nodes))', 'on_device(positive_nodes(max(1, plan.output_nodes - 1)))') + edit('make_nodes', 'interpolation_matrix(plan.output_nodes)', 'interpolation_matrix(max(1, plan.output_nodes - 1))'),
    'nodes in (0, h]': edit('make_nodes', 'shift / scale * positive', 'h / scale * positive'),
    'cube of another polynomial': edit('odd_basis', '4 * cube - 3 * v', '4 * cube - 2 * v'),
    'wrong basis': edit('odd_basis', '4 * v * v - 2', '4 * v * v - 1'),
    'inputs not scaled': edit('interpolate', 'inputs if factor == 1 else inputs * factor', 'inputs'),
    'a bias has the largest input': edit('interpolate', 'odd_basis(factor, len(at_nodes))', 'odd_basis(1.0, len(at_nodes))'),
    'other nodes not weighed': edit('combine', 'alpha=factor', 'alpha=1'),
    'always float32': edit('interpolate', 'narrow = mixed and', 'narrow = True or'),
    'float32 where the plan says no': edit('interpolate', 'narrow = mixed and', 'narrow ='),
    "float32's range is not watched": edit('interpolate', ' and float32_holds(first)', ''),
    'the guard is inverted': edit('interpolate', 'and float32_holds(first)', 'and not float32_holds(first)'),
    'a middle coefficient lost': edit('interpolate', 'zip(basis[-2::-1], further[-2::-1]', 'zip(basis[-3::-1], further[-3::-1]'),
    'a power sum too few': edit('polynomial', '    total = power_sums[-1]', '    total = power_sums[-1] * 0'),
    'a power too many': edit('multiply_powers', 'power = power * scaled', 'power = power * scaled * scaled'),
    'powers of V unscaled': edit('sum_powers', 'scaled = V, [], scale * V', 'scaled = V, [], V'),
    'binomial sign': edit('binomial_sum', 'value=-r / (n - r + 1)', 'value=r / (n - r + 1)'),
    'binomial coefficients off by one': edit('binomial_sum', '(n - r + 1)', '(n - r + 2)'),
    'moves relative to class 0': edit('sum_powers', 'W2.T.index_select(0, labels)[:, None]', 'W2.T[0]'),
    'sign of the right class': edit('output_delta', 'keepdim=True).neg_())', 'keepdim=True))'),
    'moves to first order': edit('unit_moves', 'torch.add(shift.poles, base.z1, alpha=scale)', 'shift.poles + 0 * base.z1'),
    'z for 1 - z in the moves': edit('unit_moves', 'base.z1, alpha=scale', 'base.one_minus_z1, alpha=scale'),
    'always linear': edit('hidden_difference', 'if plan.linear:', 'if plan.terms:'),
    'logits are always linear': edit('output_difference', 'if plan.output_linear:', 'if True:'),
    '1 + S(-) dropped': edit('hidden_difference', 'total.addcmul_(total, below, value=scale).add_', 'total.add_'),
    'half the change left out of the denominator': edit('hidden_difference', '.add_(half, alpha=scale)', ''),
    'large shifts: slope at the start': edit('unit_moves', '-torch.sigmoid(base.a1 + s)', '-base.z1'),
}
FAULTS = KERNELS | STEP | LOSS | FORWARD | INDEXING | PRECISION | DIRECT | STATE
