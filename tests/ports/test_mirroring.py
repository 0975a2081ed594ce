"""The ports mirror the reference: the same files, with the same functions in the same order and the same arguments.

Differences are declared where they stand: `# Only in JAX: reason` above what the reference lacks, a line
``# Not in JAX: `name`: reason`` for what the port lacks, and `# Other arguments: reason` above what takes other ones.
"""

import ast
import re
from pathlib import Path

import pytest

import ports

ROOT = Path(ports.__file__).parents[1]
FILES = ("two_layer_net", "loss_difference", "interpolation", "numerical_gradient", "descent")
PORTS = {"jax_port": "JAX", "torch_port": "PyTorch"}
PAIRS = [(file, port) for file in FILES for port in PORTS]


def definitions(source: str) -> dict[str, list[str]]:
    """Return the functions and classes at the top level, in their order, with their arguments."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {node.name: arguments(node) for node in nodes}


def arguments(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    if isinstance(node, ast.ClassDef):
        return []
    return [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def comment_above(source: str, name: str) -> str:
    """Return the comment lines directly above a definition and its decorators."""
    lines = source.splitlines()
    node = next(node for node in ast.parse(source).body if getattr(node, "name", None) == name)
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    comments = []
    for line in reversed(lines[: first - 1]):
        if not line.startswith("#"):
            break
        comments.insert(0, line)
    return "\n".join(comments)


def drift(reference: str, port: str, framework: str) -> list[str]:
    """List where a port's file differs from the reference without declaring it."""
    ours, theirs = definitions(reference), definitions(port)
    absent = set(re.findall(rf"^# Not in {framework}: `(\w+)`: \S", port, re.MULTILINE))
    faults = [f"{name} is missing" for name in ours if name not in theirs and name not in absent]
    faults += [f"{name} is declared absent" for name in absent if name in theirs or name not in ours]
    for name, taken in theirs.items():
        comment = comment_above(port, name)
        if (name in ours) == bool(re.search(rf"^# Only in {framework}: \S", comment, re.MULTILINE)):
            faults.append(f"{name} must be the reference's, or declared to be the port's own")
        elif name in ours and taken[: len(ours[name])] != ours[name] and "# Other arguments: " not in comment:
            faults.append(f"{name} takes {', '.join(taken)}; in the reference {', '.join(ours[name])}")
    common = [name for name in theirs if name in ours]
    if common != [name for name in ours if name in theirs]:
        faults.append(f"the order is {', '.join(common)}")
    return faults


def read(folder: str, file: str) -> str:
    return (ROOT / folder / f"{file}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(("file", "port"), PAIRS)
def test_a_port_mirrors_the_reference(file: str, port: str) -> None:
    assert drift(read("reference", file), read(f"ports/{port}", file), PORTS[port]) == []


ORIGINAL = "def f(a, b): pass\ndef g(a): pass\nclass H: pass"


@pytest.mark.parametrize(
    ("port", "fault"),
    [
        ("def g(a): pass\ndef f(a, b): pass\nclass H: pass", "the order is g, f, H"),
        ("def f(a, b): pass\nclass H: pass", "g is missing"),
        ("def f(a, c): pass\ndef g(a): pass\nclass H: pass", "f takes a, c; in the reference a, b"),
        (f"{ORIGINAL}\ndef own(): pass", "own must be the reference's, or declared to be the port's own"),
        (f"{ORIGINAL}\n# Not in JAX: `g`: no need\n", "g is declared absent"),
        (ORIGINAL.replace("class", "# Only in JAX: so\nclass"), "H must be the reference's, or declared"),
    ],
)
def test_a_planted_difference_is_found(port: str, fault: str) -> None:
    assert any(found.startswith(fault) for found in drift(ORIGINAL, port, "JAX"))


def test_a_declared_difference_is_let_pass() -> None:
    port = """# Not in JAX: `g`: XLA does it.
# Other arguments: a comes last.
def f(b, a, more=0): pass
# Only in JAX: a program.
@jit
def own(): pass
class H: pass
"""
    assert drift(ORIGINAL, port, "JAX") == []
