"""NumPy's port with some members replaced."""

from types import SimpleNamespace
from typing import Any

from comparison.agreement.comparison import Subject
from comparison.conformance.nets import NUMPY


def with_members(**members: Any) -> Subject:
    """Replace members of NumPy's port."""
    right = {name: getattr(NUMPY.port, name) for name in vars(NUMPY.port) if not name.startswith("_")}
    return NUMPY._replace(port=SimpleNamespace(**right | members))
