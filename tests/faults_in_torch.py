"""Faults of the PyTorch port, each an edit of its source: function, what stands there, what is put in its place.

Equivalent, and so left out:

* sigmoid as 1 / (1 + exp(-a)): exp overflows to infinity where the sigmoid underflows to 0;
* `_true_float32` taken away: on the CPU float32 products are float32 unless the caller has asked for less, and a test
  asks for less;
* copies of W1 laid out (P, I, H) in memory, and any other order of the same numbers.
"""

from wrong_ports import edit

_CHECKED = "    check_memory(memory)\n    sizes"
_H = "    h = check_step(h)"
_SOFTMAX = "torch.softmax(_logits(params, x), dim=0)"
_INNER = "torch.softmax(a2.T, dim=0).T"
_CHUNKS = "_slices(len(x), size)"
_HIDDEN, _OUTPUT = "positive_nodes(needs.hidden_nodes)", "positive_nodes(needs.output_nodes)"
_FACTORS = "_output_factors(shift.s, right)).sum(0)"

STEP = {
    "loop: forward differences": edit("_loop_member", "torch.sub(value, h, ", "torch.sub(value, 0, ")
    + edit("_loop_member", "(2 * h)", "(h)"),
    "loop: backward differences": edit("_loop_member", "torch.add(value, h, ", "torch.add(value, 0, ")
    + edit("_loop_member", "(2 * h)", "(h)"),
    "loop: no half": edit("_loop_member", "(2 * h)", "(h)"),
    "loop: negated": edit("_loop_member", "above.sub_(below)", "below.sub_(above)"),
    "loop: step relative to |p|": edit("_loop_member", "torch.add(value, h,", "torch.add(value, h * value.abs(),")
    + edit("_loop_member", "torch.sub(value, h,", "torch.sub(value, h * value.abs(),")
    + edit("_loop_member", ".div_(2 * h)", ".div_(2 * h * p.abs().view(-1)[at.ravel()])"),
    "loop: divisor in float32": edit("_loop_member", "(2 * h)", "(2 * float(np.float32(h)))"),
    "loop: move in float32": edit("_loop_member", "torch.add(value, h,", "torch.add(value, float(np.float32(h)),"),
    "loop: five-point formula": edit("_loop_member", "        parameter.copy_(value)", "        torch.add(value, 2 * h, out=parameter)\n        above[n] = 8 * above[n] - _loss(moved, x, labels)\n        torch.sub(value, 2 * h, out=parameter)\n        below[n] = 8 * below[n] - _loss(moved, x, labels)\n        parameter.copy_(value)")
    + edit("_loop_member", "(2 * h)", "(12 * h)"),
    "batched: forward differences": edit("_differences", "value - h", "value") + edit("_differences", "(2 * h)", "(h)"),
    "batched: backward differences": edit("_differences", "value + h", "value") + edit("_differences", "(2 * h)", "(h)"),
    "batched: no half": edit("_differences", "(2 * h)", "(h)"),
    "batched: negated": edit("_differences", "above.sub_(below)", "below.sub_(above)"),
    "batched: step in float32": edit("_differences", "value + h", "value + float(np.float32(h))"),
    "loop: h ignored": edit("loop", _H, "    h = check_step(1e-4)"),
    "batched: h doubled": edit("batched", _H, "    h = 2 * check_step(h)"),
    "batched: h ten times": edit("batched", _H, "    h = 10 * check_step(h)"),
    "structured: h halved": edit("structured", _H, "    h = check_step(h) / 2"),
    "structured: h ten times": edit("structured", _H, "    h = check_step(10 * h) if h < 0.1 else h"),
    "structured: no half": edit("_structured", "div_(2 * h *", "div_(h *"),
    "structured: negated": edit("_structured", "div_(2 * h *", "div_(-2 * h *"),
    "structured: divisor in float32": edit("_structured", "div_(2 * h *", "div_(2 * float(np.float32(h)) *"),
    "structured: closed form": edit("structured", "return _structured(", "return _closed_form(params, x, labels, len(x))[1] or _structured("),
    "collocated: h doubled": edit("collocated", _H, "    h = 2 * check_step(h)"),
    "collocated: h ignored": edit("collocated", _H, "    h = check_step(1e-4)"),
    "collocated: no half": edit("_nodes", "2 * h * samples", "h * samples"),
    "collocated: closed form": edit("collocated", "return _collocated(", "return _closed_form(params, x, labels, len(x))[1] or _collocated("),
    "h ignored in training": edit("_train_steps", _H, "    h = check_step(1e-4)"),
    "loop: h ignored in training": edit("_loss_and", "gradient_(*net, h=h, memory", "gradient_(*net, memory"),
    "training's default h is 1e-5": edit("train_steps", "h: float = 1e-4", "h: float = 1e-5"),
    **{
        f"{name}: default h is 1e-3": edit(name, "h: float = 1e-4", "h: float = 1e-3")
        for name in ("loop", "batched", "structured", "collocated")
    },
}
LOSS = {
    "DELTA dropped": edit("_cross_entropy", "y_t + DELTA", "y_t"),
    "DELTA is 1e-8": edit("", "from reference.functions import DELTA\n", "DELTA = 1e-8\n"),
    "clipped at DELTA": edit("_cross_entropy", "y_t + DELTA", "y_t.clamp(min=DELTA)"),
    "base 2": edit("_cross_entropy", "torch.log(", "torch.log2("),
    "sum for mean": edit("_cross_entropy", ".mean(dim=-1)", ".sum(dim=-1)"),
    "B - 1": edit("_cross_entropy", ".mean(dim=-1)", ".sum(dim=-1) / (y_t.shape[-1] - 1)"),
    "sign": edit("_cross_entropy", "-torch.log", "torch.log"),
    "closed form: q dropped": edit("_closed_form", "y_t / ((y_t + _scalar(DELTA, x)) * samples)", "y_t / (y_t * samples)"),
    "closed form: B - 1": edit("_closed_form", "* samples", "* (samples - 1)"),
    "structured: B - 1": edit("_structured", "2 * h * samples", "2 * h * (samples - 1)"),
    "collocated: B - 1": edit("_nodes", "2 * h * samples", "2 * h * (samples - 1)"),
    "collocated: sum for mean": edit("_nodes", "2 * h * samples", "2 * h"),
    "differences: DELTA is 1e-8": edit("_unperturbed", "_scalar(DELTA, x)", "_scalar(1e-8, x)"),
    "differences: 1 + rho is rho": edit("_unperturbed", "rho + _scalar(1, x)", "rho"),
    "exponentials: DELTA is 1e-8": edit("_by_exponentials", "math.log(DELTA)", "math.log(1e-8)"),
}
FORWARD = {
    "b1 missing": edit("_logits", " + params.b1[:, None]", ""),
    "b1 negated": edit("_logits", "+ params.b1", "- params.b1"),
    "b2 missing": edit("_logits", " + params.b2[:, None]", ""),
    "b2 negated": edit("_logits", "+ params.b2", "- params.b2"),
    "tanh": edit("_logits", ".sigmoid_()", ".tanh_()"),
    "hard sigmoid": edit("_logits", "(params.W1.T @ x.T + params.b1[:, None]).sigmoid_()", "torch.nn.functional.hardsigmoid(params.W1.T @ x.T + params.b1[:, None])"),
    "relu": edit("_logits", ".sigmoid_()", ".relu_()"),
    "sigmoid by tanh": edit("_forward", "z1 = torch.sigmoid(a1)", "z1 = (1 + torch.tanh(a1 / 2)) / 2"),
    "softmax over the samples": edit("_right", "dim=0", "dim=1"),
    "predictions over the samples": edit("predict", "dim=0", "dim=1"),
    "softmax unshifted": edit("_right", _SOFTMAX, "(lambda e: e / e.sum(0))(_logits(params, x).exp())"),
    "softmax twice": edit("_right", _SOFTMAX, f"torch.softmax({_SOFTMAX}, dim=0)"),
    "predictions transposed": edit("predict", ".T.contiguous()", ""),
    "accuracy of the least probable": edit("accuracy", "argmax", "argmin"),
    "differences: b1 missing": edit("_forward", "torch.addmm(params.b1, x, params.W1)", "x @ params.W1"),
    "differences: b2 negated": edit("_forward", "torch.addmm(params.b2, z1, params.W2)", "torch.addmm(-params.b2, z1, params.W2)"),
    "differences: softmax over the samples": edit("_forward", _INNER, "torch.softmax(a2.T, dim=1).T"),
    "differences: softmax unshifted": edit("_forward", _INNER, "a2.exp() / a2.exp().sum(1, keepdim=True)"),
    "differences: softmax twice": edit("_forward", _INNER, f"torch.softmax({_INNER}, dim=1)"),
}
INDEXING = {
    "label + 1": edit("_checked", "check_labels(on_host, len(x), len(params.b2))", "(check_labels(on_host, len(x), len(params.b2)) + 1) % len(params.b2)"),
    "sample 0's label for all": edit("_right", "labels[None]", "labels[None] * 0 + labels[0]"),
    "labels reversed": edit("_apart", "labels.unsqueeze(1)", "labels.flip(0).unsqueeze(1)"),
    "loop: last parameter dropped": edit("_loop_member", "return above", "above[-1] = below[-1]\n    return above"),
    "loop: order rolled": edit("_loop_member", "enumerate(at.flat)", "enumerate(np.roll(at, 1).flat)"),
    "batched: last chunk lost": edit("_batched_member", "in _slices(at.numel(), size)", "in [*_slices(at.numel(), size)][:-1]")
    + edit("_batched_member", "p.new_empty", "p.new_zeros"),
    "batched: order rolled": edit("_batched_member", "at.flatten()[part]", "at.flatten().roll(1)[part]"),
    "batched: column-major": edit("_batched_member", "torch.unravel_index(at.flatten()[part], p.shape)", "torch.unravel_index(at.flatten()[part], p.shape[::-1])[::-1]"),
    "structured: last parameter dropped": edit("_structured", "    return torch.cat", "    total.b2[-1] = 0\n    return torch.cat"),
    "structured: last chunk of pairs lost": edit("_add_by_pixel", "nonzero().split(size)", "nonzero().split(size)[:-1]"),
    "structured: neighbouring pixel": edit("_add_by_pixel", "x[sample, pixel]", "x[sample, pixel - 1]"),
    "structured: sums of a pixel lost": edit("_add_by_pixel", "total.index_add_(0, pixel, differences.mul_(value.sign()))", "total[pixel] += differences.mul_(value.sign())"),
    "structured: W2 summed over units": edit("_structured", "h * net.z1.T[:, :, None]", "h * net.z1.T.flip(0)[:, :, None]"),
    "collocated: last chunk lost": edit("_collocated", f"chunks = {_CHUNKS}", f"chunks = [*{_CHUNKS}][:-1]"),
    "shorter chunk lost": edit("_slices", "range(0, length, size)", "range(0, max(1, length - size + 1), size)"),
    "collocated: labels of the first chunk for all": edit("_collocated", "labels[rows]", "labels[: rows.stop - rows.start]"),
    "structured: labels of the first chunk for all": edit("_structured", "_unperturbed(params, x[rows], labels[rows]", "_unperturbed(params, x[rows], labels[: rows.stop - rows.start]"),
    "collocated: W1 transposed": edit("_collocated_sums", "Params(W1,", "Params(W1.T.reshape(W1.shape),"),
    "collocated: order of b1 rolled": edit("_collocated_sums", "Params(W1, b1", "Params(W1, b1.roll(1)"),
    "collocated: right class of the transpose": edit("_collocated_sums", "labels).mT", "labels.flip(0)).mT"),
}
PRECISION = {
    "x in float32": edit("_logits", "x.T", "x.T.float().to(x.dtype)"),
    "logits in float32": edit("_right", "_logits(params, x)", "_logits(params, x).float().to(x.dtype)"),
    "W2 in bfloat16": edit("_logits", "params.W2.T @", "params.W2.T.bfloat16().to(x.dtype) @"),
    "accuracy in float32": edit("accuracy", ".to(x.dtype)", ".float()"),
    "loss in float32": edit("_cross_entropy", "torch.log(y_t + DELTA)", "torch.log(y_t.float() + DELTA).to(y_t.dtype)"),
    "differences: x in float32": edit("_forward", "params.b1, x,", "params.b1, x.float().to(x.dtype),"),
    "differences: z in float32": edit("_forward", "torch.sigmoid(a1)\n", "torch.sigmoid(a1).float().to(x.dtype)\n"),
    "differences: W2 in bfloat16": edit("_unperturbed", "delta, params.W2,", "delta, params.W2.bfloat16().to(x.dtype),"),
    "closed form: delta in float32": edit("_closed_form", "delta1.sum(0)", "delta1.float().sum(0).to(x.dtype)"),
    "hidden expm1 as exp - 1": edit("_shift", ".expm1_()", ".exp_().sub_(1)"),
    "hidden expm1 in float32": edit("_shift", "torch.stack((s, -s)).expm1_()", "torch.stack((s, -s)).float().expm1_().to(s.dtype)"),
    "output expm1 as exp - 1": edit("_output_factors", ".expm1_()", ".exp_().sub_(1)"),
    "log1p as log(1 + .)": edit("_log_ratio", ".log1p_()", ".add_(1).log_()"),
    "large shifts: expm1 in float32": edit("_hidden_difference", "torch.expm1(-shift.s)", "torch.expm1(-shift.s.float()).to(shift.s.dtype)"),
    "exponentials: log1p in float32": edit("_by_exponentials", "torch.log1p(change.abs() * exponent.exp_())", "torch.log1p((change.abs() * exponent.exp_()).float()).to(up.dtype)"),
    "nodes in float32": edit("_nodes", f"(shift * {_HIDDEN}[:, None, None])", f"(shift * {_HIDDEN}[:, None, None]).float()"),
    "transform in float32": edit("_interpolation", "transform = chebyshev_transform(count)", "transform = chebyshev_transform(count).astype(np.float32)"),
    "structured: step in float32": edit("_add_by_pixel", "h * value.abs()", "float(np.float32(h)) * value.abs()"),
    "rho in float32": edit("_unperturbed", "y_t / _scalar(DELTA, x)", "(y_t / _scalar(DELTA, x)).float().to(x.dtype)"),
    "learning rate in float32": edit("_scan", "alpha=learning_rate", "alpha=float(np.float32(learning_rate))"),
}
DIRECT = {
    "a hidden node too few": edit("_nodes", _HIDDEN, "positive_nodes(max(1, needs.hidden_nodes - 1))")
    + edit("_nodes", "(needs.hidden_nodes,", "(max(1, needs.hidden_nodes - 1),"),
    "an output node too few": edit("_nodes", _OUTPUT, "positive_nodes(max(1, needs.output_nodes - 1))")
    + edit("_nodes", "(needs.output_nodes,", "(max(1, needs.output_nodes - 1),"),
    "nodes of another polynomial": edit("_nodes", _HIDDEN, "(0.99 * positive_nodes(needs.hidden_nodes))"),
    "nodes in (0, h]": edit("_nodes", "shift * positive_nodes", "h * positive_nodes"),
    "cube of another polynomial": edit("_odd_basis", "4 * cube - 3 * v", "4 * cube - 2 * v"),
    "wrong basis": edit("_odd_basis", "4 * v * v - 2", "4 * v * v - 1"),
    "coefficient of the cube forgotten": edit("_interpolation", "transform[0] -= 3 * transform[1]", "pass"),
    "inputs not scaled": edit("_interpolate", "inputs * by.scale", "inputs"),
    "a bias has the largest input": edit("_interpolation", "_odd_basis(scale)", "_odd_basis(1.0)"),
    "last coefficient dropped": edit("_interpolate", "zip(coefficients[1:], basis", "zip(coefficients[1:-1], basis"),
    "other nodes not weighed": edit("_combined", "alpha=weight", "alpha=1"),
    "two power sums too few": edit("_power_sums", "range(1, terms)", "range(1, max(1, terms - 2))"),
    "factorial dropped": edit("_polynomial", "value=1 / (n + 1)", "value=1"),
    "binomial sign": edit("_binomial_sums", "value=-r", "value=r"),
    "binomial coefficients off by one": edit("_binomial_sums", "(n - r + 1)", "(n - r + 2)"),
    "moves relative to class 0": edit("_power_sums", "c.index_select(0, labels)", "c.index_select(0, 0 * labels)"),
    "non-zeros skipped": edit("_add_by_pixel", "x.T.nonzero()", "(x.T.abs() > 0.1).nonzero()"),
    "negative inputs skipped": edit("_add_by_pixel", "x.T.nonzero()", "(x.T > 0).nonzero()"),
    "sign of an input forgotten": edit("_add_by_pixel", "differences.mul_(value.sign())", "differences"),
    "shifts of either sign": edit("_add_by_pixel", "h * value.abs()", "h * value"),
    "1 - z": edit("_forward", "torch.sigmoid(-a1)", "1 - z1"),
    "1 - y_t": edit("_apart", "others.sum(1, keepdim=True).neg_()", "y_t - 1"),
    "S over all k": edit("_apart", "y.scatter(1, column, 0)", "y.clone()"),
    "sign of the right class": edit("_output_factors", "torch.where(right, -e.flip(0), e)", "torch.where(right, e.flip(0), e)"),
    "right class shifts like the others": edit("_output_factors", "torch.where(right, -e.flip(0), e)", "e + 0 * right"),
    "moves to first order": edit("_hidden_difference", "net.z1 + shift.poles", "0 * net.z1 + shift.poles"),
    "z for 1 - z": edit("_hidden_difference", "net.z1 + shift.poles", "net.w1 + shift.poles"),
    "1 + S(-) dropped": edit("_log_ratio", "    denominator.addcmul_(denominator, below)\n", ""),
    "S(+) dropped": edit("_log_ratio", "above + net.above_rho", "0 * above + net.above_rho"),
    "large shifts: slope at the start": edit("_hidden_difference", "-torch.sigmoid(net.a1 + s)", "-net.z1"),
    "exponentials: sign forgotten": edit("_by_exponentials", ".mul_(apart.sign_())", ""),
    "exponentials: lesser and greater swapped": edit("_by_exponentials", "change > 0", "change < 0"),
}
STATE = {
    "loop: parameter left moved": edit("_loop_member", "        parameter.copy_(value)\n", ""),
    "batched: parameter left moved": edit("_differences", "    moved[nth] = value\n    return", "    return"),
    "loop moves the caller's net": edit("_loop", "Params(*(p.clone(memory_format=torch.contiguous_format) for p in params))", "params")
    + edit("_loop_member", "        parameter.copy_(value)\n", "        parameter.copy_(value.nextafter(value + 1))\n"),
    "training changes the caller's net": edit("_scan", "*(p.clone() for p in initial[1:])", "*initial[1:]"),
    "the caller's labels are changed": edit("_checked", _CHECKED, "    if isinstance(t, np.ndarray):\n        t[..., -1] = t[..., 0]\n" + _CHECKED),
    "buffer of the inputs is stale": edit("_scan", "torch.index_select(x, 0, batch, out=inputs)", "torch.index_select(x, 0, batches[0], out=inputs)"),
    "stale labels": edit("_scan", "labels[batches], right", "labels[batches[:1]].expand_as(batches), right"),
    "learning rate's sign": edit("_scan", "p.sub_(g", "p.add_(g"),
    "learning rate halved": edit("_scan", "alpha=learning_rate", "alpha=learning_rate / 2"),
    "slopes of the initial net": edit("_scan", "step(params, torch", "step(initial, torch"),
    "losses in reverse": edit("_train_steps", "_cross_entropy(y_t)", "_cross_entropy(y_t).flip(0)"),
    "losses share a buffer": edit("_scan", "kept.copy_(y_t.view(-1))", "right.copy_(y_t.view(-1).expand_as(right))"),
    "b2 is not trained": edit("_scan", "params._replace(W1=W1.contiguous())", "params._replace(W1=W1.contiguous(), b2=initial.b2)"),
    "trained by the closed form": edit("_loss_and", "if gradient_ is gradient:", "if gradient_ is not None:"),
    "nodes of another batch size": edit("_train_steps", "chosen.shape[1], params", "len(x), params"),
    "to_numpy aliases": edit("to_numpy", ".copy()", ""),
    "from_numpy aliases": edit("from_numpy", "np.array(check_numbers(array), dtype=check_dtype(dtype), order=\"C\")", "np.asarray(array, dtype=check_dtype(dtype))"),
    "from_numpy changes its source": edit("from_numpy", "    copy =", "    array *= 1 - 1e-3\n    copy ="),
    "from_numpy reads in the order of memory": edit("from_numpy", "torch.from_numpy(copy)", "torch.from_numpy(np.asarray(array, dtype).ravel('K').reshape(copy.shape))"),
}
FAULTS = STEP | LOSS | FORWARD | INDEXING | PRECISION | DIRECT | STATE
