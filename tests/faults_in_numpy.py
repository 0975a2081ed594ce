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
    "a bias has the largest input": edit("numerical_gradient", "h / shift, hidden", "1.0, hidden"),
    "a node is missing": edit("collocation", "return count\n", "return max(1, count - 1)\n"),
    "two terms are missing": edit("collocation", "return terms\n", "return max(1, terms - 2)\n"),
    "nodes of another polynomial": edit(
        "collocation",
        "return np.cos((2 * k - 1) * math.pi / (4 * count + 2))",
        "return np.cos((2 * k - 1) * math.pi / (4 * count + 1))",
    ),
    "the shift of an output is squared": edit("loss_difference", "e, f = np.expm1(s)", "e, f = np.expm1(s * s)"),
    "the others are 1 - y_t": edit(
        "loss_difference",
        "abs_delta=np.where(right, others.sum(axis=1, keepdims=True), y)",
        "abs_delta=np.where(right, 1 - y_t, y)",
    ),
    "1 - z is subtracted": edit("loss_difference", "one_minus_z1=sigmoid(-a1)", "one_minus_z1=1 - z1"),
    "expm1 is exp - 1": edit("loss_difference", "e = np.expm1(-s)", "e = np.exp(-s) - 1"),
    "expm1 is float32": edit("loss_difference", "e = np.expm1(-s)", "e = np.expm1(np.float32(-s)).astype(s.dtype)"),
    "log1p is log(1 +)": edit("loss_difference", "return np.log1p(base.q", "return np.log(1 + base.q"),
    "sigmoid is made of tanh": edit(
        "functions", "return np.where(a >= 0, 1, tail) / (1 + tail)", "return (1 + np.tanh(a / 2)) / 2"
    ),
    "the closed form has 1 - z": edit("two_layer_net", "* sigmoid(-a1)", "* (1 - z1)"),
    "the closed form has y - 1": edit(
        "two_layer_net", "delta2[rows, labels] = -delta2.sum(axis=1)", "delta2[rows, labels] = y_t - 1"
    ),
    "q is left out of the difference": edit("loss_difference", "np.log1p(base.q * (above", "np.log1p((above"),
    "r is left out of the difference": edit(
        "loss_difference", "(above - below) / ((1 + below) * (1 + base.r * above))", "(above - below) / (1 + below)"
    ),
    "DELTA is left out of the loss": edit("functions", "np.log(right + DELTA)", "np.log(right)"),
    "DELTA is 1e-8": edit("functions", "DELTA = 1e-7", "DELTA = 1e-8"),
    "q is left out of the closed form": edit("two_layer_net", "(y_t / (y_t + DELTA) / len(x))", "(y_t / y_t / len(x))"),
    "the loss is a sum": edit("functions", ".mean(axis=-1)", ".sum(axis=-1)"),
    "the logarithm has base 2": edit("functions", "-np.log(right", "-np.log2(right"),
    "softmax sums over the samples": edit("functions", "exponentials.sum(axis=-1", "exponentials.sum(axis=-2"),
    "b1 is left out of the net": edit("two_layer_net", "x @ params.W1 + params.b1[..., None, :]", "x @ params.W1"),
    "training climbs": edit("descent", "p - learning_rate * g", "p + learning_rate * g"),
    "training takes half a step": edit("descent", "p - learning_rate * g", "p - learning_rate / 2 * g"),
    "training is by the closed form": edit("descent", "if strategy == CLOSED_FORM:", "if strategy:"),
    "training takes its first batch each time": edit(
        "descent", "x[batch], labels[batch])", "x[batches[0]], labels[batches[0]])"
    ),
    "b2 is left out of the closed form": edit(
        "two_layer_net", "softmax(z1 @ params.W2 + params.b2)", "softmax(z1 @ params.W2)"
    ),
}
