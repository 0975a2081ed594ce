"""Faults of the reference, and so of the NumPy port, each an edit of its source: what stands there, what is put there."""

from wrong_ports import Edit


def edit(module: str, old: str, new: str) -> tuple[Edit]:
    return (Edit("", old, new, f"reference.{module}"),)


FAULTS = {
    "half is dropped in loop": edit("gradient", "] = (above - below) / (2 * h)", "] = (above - below) / h"),
    "half is dropped in batched": edit("gradient", "return (above - below) / (2 * h)", "return (above - below) / h"),
    "loop takes forward differences": edit("gradient", "p.flat[entry] = value - h", "p.flat[entry] = value") + edit("gradient", "] = (above - below) / (2 * h)", "] = (above - below) / h"),
    "batched takes backward differences": edit("gradient", "moved[nth, entry] = value + h", "pass") + edit("gradient", "return (above - below) / (2 * h)", "return (above - below) / h"),
    "loop divides by a float32 step": edit("gradient", "] = (above - below) / (2 * h)", "] = (above - below) / (2 * float(np.float32(h)))"),
    "loop moves by a float32 step": edit("gradient", "p.flat[entry] = value + h", "p.flat[entry] = value + float(np.float32(h))"),
    "loop leaves a parameter moved": edit("gradient", "        p.flat[entry] = value\n", ""),
    "batched leaves a parameter moved": edit("gradient", "    moved[nth, entry] = value\n", ""),
    "loop moves the caller's parameters": edit("gradient", "Params(*(p.copy() for p in params))", "params") + edit("gradient", "        p.flat[entry] = value\n", ""),
    "batched loses its last chunk": edit("gradient", "differences = np.empty(flat.shape, p.dtype)", "differences = np.zeros(flat.shape, p.dtype)") + edit("gradient", "in _slices(len(flat), size):", "in list(_slices(len(flat), size))[:-1]:"),
    "structured loses its last chunk": edit("gradient", "in _slices(len(pixel), size):", "in list(_slices(len(pixel), size))[:-1]:"),
    "structured forgets the sign of an input": edit("gradient", "np.sign(value) * hidden", "hidden"),
    "a bias has the largest input": edit("gradient", "h / shift, hidden", "1.0, hidden"),
    "a node is missing": edit("collocation", "return count\n", "return max(1, count - 1)\n"),
    "two terms are missing": edit("collocation", "return terms\n", "return max(1, terms - 2)\n"),
    "nodes of another polynomial": edit("collocation", "return np.cos((2 * k - 1) * math.pi / (4 * count + 2))", "return np.cos((2 * k - 1) * math.pi / (4 * count + 1))"),
    "the shift of an output is squared": edit("difference", "e, f = np.expm1(s)", "e, f = np.expm1(s * s)"),
    "the others are 1 - y_t": edit("difference", "y=np.where(right, others.sum(axis=1, keepdims=True), y)", "y=np.where(right, 1 - y_t, y)"),
    "w is 1 - z": edit("difference", "w1=sigmoid(-a1)", "w1=1 - z1"),
    "expm1 is exp - 1": edit("difference", "e = np.expm1(-s)", "e = np.exp(-s) - 1"),
    "expm1 is float32": edit("difference", "e = np.expm1(-s)", "e = np.expm1(np.float32(-s)).astype(s.dtype)"),
    "log1p is log(1 +)": edit("difference", "return np.log1p(net.q", "return np.log(1 + net.q"),
    "sigmoid is made of tanh": edit("functions", "return np.where(a >= 0, 1, tail) / (1 + tail)", "return (1 + np.tanh(a / 2)) / 2"),
    "the closed form has 1 - z": edit("two_layer_net", "* sigmoid(-a1)", "* (1 - z1)"),
    "the closed form has y - 1": edit("two_layer_net", "delta2[rows, labels] = -delta2.sum(axis=1)", "delta2[rows, labels] = y_t - 1"),
    "q is left out of the difference": edit("difference", "np.log1p(net.q * (above", "np.log1p((above"),
    "r is left out of the difference": edit("difference", "(1 + net.r * above)", "1"),
    "DELTA is left out of the loss": edit("functions", "np.log(right + DELTA)", "np.log(right)"),
    "DELTA is 1e-8": edit("functions", "DELTA = 1e-7", "DELTA = 1e-8"),
    "q is left out of the closed form": edit("two_layer_net", "(y_t / (y_t + DELTA) / len(x))", "(y_t / y_t / len(x))"),
    "the loss is a sum": edit("functions", ".mean(axis=-1)", ".sum(axis=-1)"),
    "the logarithm has base 2": edit("functions", "-np.log(right", "-np.log2(right"),
    "softmax sums over the samples": edit("functions", "exponentials.sum(axis=-1", "exponentials.sum(axis=-2"),
    "b1 is left out of the net": edit("two_layer_net", "x @ params.W1 + params.b1[..., None, :]", "x @ params.W1"),
    "b2 is left out of the closed form": edit("two_layer_net", "softmax(z1 @ params.W2 + params.b2)", "softmax(z1 @ params.W2)"),
}
