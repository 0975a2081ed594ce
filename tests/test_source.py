"""What the source must keep to: no autograd, imports one way and without a circle, no file over 350 lines."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import ports

ROOT = Path(ports.__file__).parents[1]
REFERENCE = sorted((ROOT / "reference").rglob("*.py"))
PORTS = sorted((ROOT / "ports").rglob("*.py"))
COMPARISON = sorted(path for path in (ROOT / "comparison").rglob("*.py") if path.parent.name != "conformance")
EXAMPLES = sorted(path for folder in ("examples", "tests/examples") for path in (ROOT / folder).rglob("*.py"))
FLOORS = (
    "reference",
    "ports",
    "comparison/agreement",
    "comparison/conformance",
    "comparison/timing",
    "comparison/report",
    "comparison/commands",
    "compare.py",
)
"""From the bottom to the top: a file imports from its own floor and from those below."""
FRAMEWORKS = {"jax", "torch", "tensorflow", "cupy", "numba", "autograd", "mlx"}

AUTOGRAD = {
    *("grad", "value_and_grad", "grad_and_value", "vjp", "jvp", "linearize", "linear_transpose", "jet"),
    *("jacobian", "jacfwd", "jacrev", "hessian", "hvp", "vhp", "custom_vjp", "custom_jvp", "custom_gradient"),
    *("autograd", "backward", "requires_grad", "requires_grad_", "enable_grad", "set_grad_enabled", "retain_grad"),
    *("make_dual", "dual_level", "forward_ad", "GradientTape", "elementwise_grad"),
}
"""No name of ours may be one of these either: an alias is found where it is imported."""


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_longer_than_350_lines() -> None:
    folders = ("reference", "ports", "comparison", "tests", "docs", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    lines = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert len(lines) > 200
    assert {name: count for name, count in lines.items() if count > 350} == {}


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield each name that the code mentions: variables, attributes, imports, keywords, and whole strings (getattr)."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.keyword(arg=str(name)):
                yield node.value.lineno, name
            case ast.Constant(value=str(text)) if text.replace(".", "").replace("_", "").isalpha():
                yield from ((node.lineno, part) for part in text.split("."))
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                parts = ".".join([getattr(node, "module", None) or "", *(alias.name for alias in names)]).split(".")
                yield from ((node.lineno, part) for part in parts)


def autograd_in(source: str) -> list[tuple[int, str]]:
    return [(line, name) for line, name in named(ast.parse(source)) if name in AUTOGRAD]


INNOCENT_NAMES = {
    "comparison/timing/other_libraries.py": {"jacobian"},  # scipy.differentiate's, of finite differences
    "ports/torch_port/runtime.py": {"autograd", "forward_ad"},  # by which tensors with a tangent are refused
}


@pytest.mark.parametrize("path", [*REFERENCE, *PORTS, *COMPARISON, *EXAMPLES], ids=shown)
def test_there_is_no_autograd(path: Path) -> None:
    found = autograd_in(path.read_text(encoding="utf-8"))
    assert [(line, name) for line, name in found if name not in INNOCENT_NAMES.get(shown(path), set())] == []


PLANTED = [
    "import jax\njax.grad(loss)(params)",
    "from jax import grad",
    "from jax import grad as slope",
    "from jax import numpy, value_and_grad as both",
    "import jax as j\nf = j.vjp",
    "jax.value_and_grad(loss)",
    "jax.jvp(f, (x,), (v,))",
    "jax.linearize(f, x)",
    "jax.jacobian(f)",
    "jax.jacfwd(f)",
    "jax.hessian(f)",
    "jax.linear_transpose(f, x)",
    "from jax.experimental import jet",
    "from jax.experimental.jet import jet as series",
    "@jax.custom_vjp\ndef f(x): return x",
    "getattr(jax, 'grad')(f)",
    "importlib.import_module('torch.autograd')",
    "import torch.autograd",
    "import torch.autograd.forward_ad as ad",
    "from torch import autograd as a",
    "torch.autograd.grad(loss, params)",
    "loss.backward()",
    "f = loss.backward",
    "torch.zeros(3, requires_grad=True)",
    "p.requires_grad = True",
    "p.requires_grad_()",
    "setattr(p, 'requires_grad', True)",
    "slope = p.grad",
    "with torch.enable_grad(): pass",
    "torch.set_grad_enabled(True)",
    "torch.func.grad(f)",
    "torch.func.grad_and_value(f)",
    "from torch.func import vjp as v",
    "torch.func.jvp(f, x, v)",
    "torch.func.jacrev(f)",
    "torch.func.hessian(f)",
    "def f():\n    def g():\n        from autograd import elementwise_grad\n",
    "import autograd.numpy as np",
]
INNOCENT = [
    '"""No autograd anywhere: no `jax.grad`, no `.backward()`."""',
    "# jax.grad would do it\nf = 1",
    "def gradient(params, x, t): return port.gradient(params, x, t)",
    "with torch.no_grad(): pass",
    "x.detach()",
    "torch.func.vmap(f)",
    "jax.vmap(f)",
    "np.gradient(x)",
    "raise ValueError('`gradient` must be one of ours, not from jax.grad or torch.autograd.')",
]


@pytest.mark.parametrize("source", PLANTED)
def test_planted_autograd_is_found(source: str) -> None:
    assert autograd_in(source)


@pytest.mark.parametrize("source", INNOCENT)
def test_what_is_no_autograd_is_let_pass(source: str) -> None:
    assert not autograd_in(source)


# --- imports


def imports_in(source: str) -> set[str]:
    """Return the modules that the code imports, also within functions; `from a import b` gives a.b."""
    imported = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                imported |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, "imports are absolute"
                imported |= {f"{module}.{alias.name}" for alias in names}
    return imported


def roots(path: Path) -> set[str]:
    """Return the top-level modules that are not of the standard library."""
    return {name.split(".")[0] for name in imports_in(path.read_text(encoding="utf-8"))} - sys.stdlib_module_names


def graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return which of these files each of them imports."""
    return {
        file: {other for name in imports_in(source) if (other := file_of(name, sources)) and other != file}
        for file, source in sources.items()
    }


def file_of(name: str, files: Iterable[str]) -> str | None:
    """Return the file that `from a.b import c` reads, a.b.c or else a.b: a module, or the front of a package."""
    for parts in (name.split("."), name.split(".")[:-1]):
        path = "/".join(parts)
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if file in files:
                return file
    return None


def floor(file: str) -> int:
    """Return the floor of a file; the front of `comparison` is on its lowest."""
    return next((n for n, place in enumerate(FLOORS) if file == place or file.startswith(place + "/")), 2)


def upward(sources: dict[str, str]) -> list[tuple[str, str]]:
    return [(a, b) for a, imported in graph(sources).items() for b in imported if floor(b) > floor(a)]


def circles(sources: dict[str, str]) -> list[str]:
    """Return the files that import themselves over others."""
    imported = graph(sources)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(imported[start])
        while waiting:
            if (file := waiting.pop()) not in seen:
                seen.add(file)
                waiting += imported[file]
        return seen

    return [file for file in sources if file in reached(file)]


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    files = [*REFERENCE, *PORTS, *COMPARISON, ROOT / "compare.py"]
    return {shown(path): path.read_text(encoding="utf-8") for path in files}


def test_imports_are_found_wherever_they_are() -> None:
    source = "import a.b as c\nfrom d import e\ndef f():\n    from g.h import i, j\n    if f: import k, l.m"
    assert imports_in(source) == {"a.b", "d.e", "g.h.i", "g.h.j", "k", "l.m"}


def test_no_import_goes_up(sources: dict[str, str]) -> None:
    assert upward(sources) == []


def test_no_files_import_each_other_in_a_circle(sources: dict[str, str]) -> None:
    assert circles(sources) == []


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("reference/functions.py", "def f():\n    import ports"),
        ("reference/functions.py", "from ports import registry"),
        ("ports/registry.py", "from comparison.agreement import bounds"),
        ("comparison/agreement/cases.py", "from comparison.timing.rounds import ratios"),
        ("comparison/timing/rounds.py", "def f():\n    from comparison.report import figures"),
        ("comparison/report/page.py", "import comparison.commands.output"),
        ("comparison/commands/agree.py", "import compare"),
    ],
)
def test_a_planted_import_upwards_is_found(sources: dict[str, str], file: str, statement: str) -> None:
    assert {a for a, _ in upward(sources | {file: f"{sources[file]}\n{statement}"})} == {file}


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("reference/functions.py", "def f():\n    from reference import two_layer_net"),
        ("ports/protocol.py", "import ports"),
        ("comparison/agreement/bounds.py", "from comparison.agreement.comparison import Subject"),
    ],
)
def test_a_planted_circle_is_found(sources: dict[str, str], file: str, statement: str) -> None:
    assert file in circles(sources | {file: f"{sources[file]}\n{statement}"})


@pytest.mark.parametrize("path", REFERENCE, ids=shown)
def test_the_reference_imports_only_numpy(path: Path) -> None:
    assert roots(path) <= {"numpy", "reference"} | ({"pooch", "rich"} if path.name == "downloads.py" else set())


@pytest.mark.parametrize("path", PORTS, ids=shown)
def test_a_port_imports_only_its_own_framework(path: Path) -> None:
    own = shown(path).removeprefix("ports/").partition("_")[0]  # of torch_port/ranks.py
    assert roots(path) & FRAMEWORKS <= {own}
    assert not roots(path) & {"tests", "problems"}


@pytest.mark.parametrize("path", PORTS, ids=shown)
def test_a_port_imports_none_of_its_siblings(path: Path) -> None:
    """But for `torch-compiled`, which compiles what the port to PyTorch computes."""
    imported = (name.split(".") for name in imports_in(path.read_text(encoding="utf-8")) if name.startswith("ports."))
    siblings = {module for _, module, *_ in imported if module.endswith("_port")}
    own = shown(path).split("/")[1].removesuffix(".py")
    assert siblings <= {own, own.replace("torch_compiled", "torch")}


@pytest.mark.parametrize("code", ["import ports, comparison.agreement.comparison", "import compare"])
def test_no_framework_is_imported_before_it_is_needed(code: str) -> None:
    if "compare" in code and not (ROOT / "compare.py").exists():
        pytest.skip("compare.py does not exist yet")
    command = [sys.executable, "-c", f"import sys; {code}; print(*sorted({FRAMEWORKS} & set(sys.modules)))"]
    run = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_compare_answers_help_without_a_framework() -> None:
    if not (ROOT / "compare.py").exists():
        pytest.skip("compare.py does not exist yet")
    code = f"""
import sys
sys.argv = ["compare.py", "--help"]
try:
    import compare
    compare.main()
except SystemExit:
    pass
print(*sorted({FRAMEWORKS} & set(sys.modules)), file=sys.stderr)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr.strip() == ""
