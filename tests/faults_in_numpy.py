"""Faults of the reference, and so of the NumPy port, each an edit of its source: what stands there, what is put there."""

from wrong_ports import Edit


def edit(module: str, old: str, new: str) -> tuple[Edit]:
    return (Edit("", old, new, f"reference.{module}"),)


FAULTS = {
    "half is dropped in loop": edit("numerical_gradient", "] = (above - below) / (2 * h)", "] = (above - below) / h"),
    "half is dropped in batched": edit(
        "numerical_gradient", "return (above - below) / (2 * h)", "return (above - below) / h"
    ),
    "loop takes forward differences": edit("numerical_gradient", "p.flat[entry] = value - h", "p.flat[entry] = value")
    + edit("numerical_gradient", "] = (above - below) / (2 * h)", "] = (above - below) / h"),
    "batched takes backward differences": edit("numerical_gradient", "moved[nth, entry] = value + h", "pass")
    + edit("numerical_gradient", "return (above - below) / (2 * h)", "return (above - below) / h"),
    "loop divides by a float32 step": edit(
        "numerical_gradient", "] = (above - below) / (2 * h)", "] = (above - below) / (2 * float(np.float32(h)))"
    ),
    "loop moves by a float32 step": edit(
        "numerical_gradient", "p.flat[entry] = value + h", "p.flat[entry] = value + float(np.float32(h))"
    ),
    "loop leaves a parameter moved": edit("numerical_gradient", "        p.flat[entry] = value\n", ""),
    "batched leaves a parameter moved": edit("numerical_gradient", "    moved[nth, entry] = value\n", ""),
    "loop moves the caller's parameters": edit("numerical_gradient", "Params(*(p.copy() for p in params))", "params")
    + edit("numerical_gradient", "        p.flat[entry] = value\n", ""),
    "batched loses its last chunk": edit(
        "numerical_gradient",
        "differences = np.empty(flat.shape, p.dtype)",
        "differences = np.zeros(flat.shape, p.dtype)",
    )
    + edit("numerical_gradient", "in slices(len(flat), size):", "in list(slices(len(flat), size))[:-1]:"),
    "structured loses its last chunk": edit(
        "numerical_gradient", "in slices(len(inputs), pairs):", "in list(slices(len(inputs), pairs))[:-1]:"
    ),
    "structured forgets the sign of an input": edit("numerical_gradient", "np.sign(value) * hidden", "hidden"),
    "a node is missing": edit("collocation", "return count\n", "return max(1, count - 1)\n"),
    "nodes of another polynomial": edit(
        "collocation",
        "return np.cos((2 * k - 1) * math.pi / (4 * count + 2))",
        "return np.cos((2 * k - 1) * math.pi / (4 * count + 1))",
    ),
    "the closed form has y - 1": edit(
        "two_layer_net", "delta2[rows, labels] = -delta2.sum(axis=1)", "delta2[rows, labels] = y_t - 1"
    ),
    "DELTA is left out of the loss": edit("functions", "np.log(right + DELTA)", "np.log(right)"),
    "DELTA is 1e-8": edit("functions", "DELTA = 1e-7", "DELTA = 1e-8"),
    "q is left out of the closed form": edit("two_layer_net", "(y_t / (y_t + DELTA) / len(x))", "(y_t / y_t / len(x))"),
    "the loss is a sum": edit("functions", ".mean(axis=-1)", ".sum(axis=-1)"),
    "the logarithm has base 2": edit("functions", "-np.log(right", "-np.log2(right"),
    "softmax sums over the samples": edit("functions", "exponentials.sum(axis=-1", "exponentials.sum(axis=-2"),
    "b1 is left out of the net": edit("two_layer_net", "x @ params.W1 + params.b1[..., None, :]", "x @ params.W1"),
    "training is by the closed form": edit("descent", "if strategy == CLOSED_FORM:", "if strategy:"),
    "b2 is left out of the closed form": edit(
        "two_layer_net", "softmax(z1 @ params.W2 + params.b2)", "softmax(z1 @ params.W2)"
    ),
    "a bias has the largest input": edit(
        "interpolation",
        "odd_basis(values.dtype.type(factor), len(values))",
        "odd_basis(values.dtype.type(1), len(values))",
    ),
    "two terms are missing": edit("collocation", "return next((terms for", "return next((max(1, terms - 2) for"),
    "the shift of an output is squared": edit("numerical_gradient", "with_bias(base.z1)", "with_bias(base.z1**2)"),
    "biases are moved by 2 h": edit("numerical_gradient", "constant_values=1", "constant_values=2"),
    "the bias comes first": edit("numerical_gradient", "hidden[:-1] * shift, hidden[-1]", "hidden[1:] * shift, hidden[0]"),
    "the others are 1 - y_t": edit(
        "loss_difference", "    y[rows, labels] = y.sum(axis=1)", "    y[rows, labels] = 1 - y_t[:, 0]"
    ),
    "1 - z is subtracted": edit("loss_difference", "one_minus_z1=one_minus_z1", "one_minus_z1=1 - z1"),
    "a shift's expm1 is exp - 1": edit(
        "loss_difference",
        "return Shift(v, scaled_expm1(np.stack((v, -v)), scale, terms))",
        "return Shift(v, (np.exp(scale * np.stack((v, -v))) - 1) / scale)",
    ),
    "sigmoid is made of tanh": edit(
        "functions",
        "    tail = np.exp(-np.abs(a))",
        "    return (1 + np.tanh(a / 2)) / 2, (1 - np.tanh(a / 2)) / 2\n    tail = np.exp(-np.abs(a))",
    ),
    "the closed form has 1 - z": edit("two_layer_net", "* z1 * one_minus_z1", "* z1 * (1 - z1)"),
    "q is left out of the difference": edit("loss_difference", "q=y_t / (y_t + DELTA)", "q=np.ones_like(y_t)"),
    "r is left out of the difference": edit("loss_difference", "r=DELTA / (y_t + DELTA)", "r=0 * y_t"),
    "training climbs": edit("descent", "            p -= g", "            p += g"),
    "training takes half a step": edit("descent", "g *= learning_rate", "g *= learning_rate / 2"),
    "training takes its first batch each time": edit(
        "descent", "np.take(x, batch, axis=0", "np.take(x, batches[0], axis=0"
    )
    + edit("descent", "labels[batch])", "labels[batches[0]])"),
    "training takes the first batch's inputs": edit(
        "descent", "np.take(x, batch, axis=0", "np.take(x, batches[0], axis=0"
    ),
    "training changes the caller's net": edit("descent", "Params(*(p.copy() for p in params))", "params"),
    "a power too many": edit(
        "loss_difference", "power = power * (scaled / (r + 2))", "power = power * scaled * (scaled / (r + 2))"
    ),
    "the binomial's sign": edit("loss_difference", "minus_c_t = -scaled[labels]", "minus_c_t = scaled[labels]"),
    "no binomial sums": edit("loss_difference", "R[n - 1] = binomial_sum(R[:n], minus_c_t)", "pass"),
    "the last power sum is left out": edit(
        "loss_difference",
        "    total = power_sums[-1] * dz\n    for P in power_sums[-2::-1]:",
        "    total = power_sums[max(0, len(power_sums) - 2)] * dz\n    for P in power_sums[:-2][::-1]:",
    ),
    "one term of arctanh too few": edit(
        "loss_difference",
        "    square = (scale * v) ** 2",
        "    terms -= 1\n    if terms == 1:\n        return v\n    square = (scale * v) ** 2",
    ),
    "arctanh has other coefficients": edit(
        "loss_difference", "total = square / (2 * terms - 1)", "total = square / (2 * terms)"
    ),
    "always linear": edit("loss_difference", "if plan.linear:", "if plan.terms:"),
    "logits are always linear": edit("loss_difference", "if not plan.output_linear:", "if False:"),
    "always float32": edit(
        "interpolation",
        "narrow = mixed and weights.size >= MIXED_LEAST and float32_holds(coefficients[0])",
        "narrow = True",
    ),
    "float32 where the plan says no": edit("interpolation", "narrow = mixed and", "narrow ="),
    "float32's range is not watched": edit("interpolation", " and float32_holds(coefficients[0])", ""),
    "the guard is inverted": edit(
        "interpolation", "and float32_holds(coefficients[0])", "and not float32_holds(coefficients[0])"
    ),
    "the first product in float32 too": edit(
        "interpolation",
        "    weights = inputs.T @ coefficients[0]",
        "    weights = (inputs.T.astype(np.float32) @ coefficients[0].astype(np.float32)).astype(values.dtype)",
    ),
    "powers of V unscaled": edit("loss_difference", "power *= scale / (n + 2) * V", "power *= V / (n + 2)"),
}
