"""The names and default values that the whole project shares; importing this module imports nothing."""

MEMBERS = ("W1", "b1", "W2", "b2")
"""The parameters of a net, in their order."""
STRATEGIES = ("loop", "batched", "structured", "collocated")
"""How the differences are evaluated, from the definition to the fastest."""
CLOSED_FORM = "closed form"
"""The derivative by backpropagation, where a strategy is named: the yardstick of accuracy and speed."""
BUILT_IN = ("numpy", "torch", "jax")
"""The backends, from the simplest to the one that compiles: the order in every table, and of preference in a tie."""
OPTIONAL = ("torch-compiled",)
"""Backends that run only where they are named, or all are: each takes long to start."""
DTYPES = ("float64", "float32")
H = 1e-4
"""The step h of the central difference, the book's."""
MEMORY = 256 * 2**20
"""Bytes that one gradient may use for its work."""
