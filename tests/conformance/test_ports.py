"""What the package promises about loading a backend, and what each backend promises about its surroundings."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, on_device
from ports import NotRunError
from ports.protocol import PortError, check_port
from problems import loaded, subjects
from reference.defaults import DTYPES
from reference.two_layer_net import Params

ROOT = Path(ports.__file__).parents[1]
FRAMEWORKS = {"jax", "torch"}


def python(code: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter and return what it prints."""
    run = shell("-c", code, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python from the root of the project."""
    command, env = [sys.executable, *arguments], {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


# --- loading


def test_importing_the_package_imports_no_framework() -> None:
    assert (
        python(f"import sys, ports, comparison.agreement.comparison; print({FRAMEWORKS} & set(sys.modules))") == "set()"
    )


def test_naming_the_backends_imports_no_framework() -> None:
    assert python(f"import sys, ports; ports.names(); print({FRAMEWORKS} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("name", ports.BUILT_IN)
def test_loading_a_backend_imports_only_its_framework(name: str) -> None:
    code = f"import sys, ports\ntry: ports.load({name!r})\nexcept ports.NotRunError: print('-')\n"
    imported = python(code + f"else: print(*sorted({FRAMEWORKS} & set(sys.modules)))")
    assert imported in ("-", name if name in FRAMEWORKS else "")


def test_the_names_are_the_backends_built_in() -> None:
    assert ports.names()[: len(ports.BUILT_IN)] == ("numpy", "torch", "jax")


@pytest.mark.parametrize("name", ports.BUILT_IN)
def test_a_backend_built_in_is_loaded_once(name: str) -> None:
    assert loaded(name) is ports.load(name) is sys.modules[f"ports.{name}_port"]


def test_a_module_is_loaded_by_its_dotted_name() -> None:
    assert ports.load("ports.numpy_port") is ports.load("numpy")


@pytest.fixture
def port_file(tmp_path: Path) -> Iterator[Path]:
    """Give the path of a port to be written; its module is forgotten afterwards."""
    yield tmp_path / "fdnet_test_port.py"
    sys.modules.pop("fdnet_test_port", None)


PORT = "from ports.numpy_port import *\nfrom ports.numpy_port import __all__\n"


def test_a_file_is_loaded_by_its_path(port_file: Path) -> None:
    port_file.write_text(PORT)
    port = ports.load(str(port_file))
    assert port.__file__ == str(port_file)  # type: ignore[attr-defined]
    assert port.GRADIENTS is ports.load("numpy").GRADIENTS


def install(folder: Path, entries: str) -> None:
    """Write the metadata that pip installs for a distribution that offers ports, in a folder to be put on sys.path."""
    metadata = folder / "fdnet_other-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fdnet-other\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[fdnet.ports]\n{entries}\n[other.group]\nstranger = json\n")


def test_a_port_of_an_installed_package_has_a_name(port_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port_file.write_text(PORT)
    install(port_file.parent, "other = fdnet_test_port\nnumpy = fdnet_test_port")
    monkeypatch.syspath_prepend(str(port_file.parent))
    assert ports.names() == (*ports.BUILT_IN, "other")
    assert ports.load("other").__file__ == str(port_file)  # type: ignore[attr-defined]
    assert ports.load("numpy").__name__ == "ports.numpy_port"  # type: ignore[attr-defined]
    assert "A backend must be one of numpy, torch, jax, other, a module or a .py file" in refusal("stranger")


def test_an_entry_point_may_name_an_attribute(port_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port_file.write_text("from ports import numpy_port as inner\n")
    install(port_file.parent, "other = fdnet_test_port:inner\nnothing = fdnet_test_port:outer\ngone = fdnet_gone")
    monkeypatch.syspath_prepend(str(port_file.parent))
    assert ports.load("other") is ports.load("numpy")
    assert "AttributeError" in refusal("nothing")
    assert refusal("gone").endswith("got 'gone'.")


@pytest.fixture
def installed(port_file: Path) -> dict[str, str]:
    """Give the environment of an interpreter that finds a port `other` installed, which records that it was used."""
    port_file.write_text(PORT + f"open({str(port_file.with_name('used'))!r}, 'a').close()\n")
    install(port_file.parent, "other = fdnet_test_port")
    return {"PYTHONPATH": str(port_file.parent), "HYPOTHESIS_PROFILE": "dev"}


def test_compare_finds_an_installed_port(installed: dict[str, str], port_file: Path) -> None:
    small = ("--data", "random", "--batch", "6", "--hidden", "3", "--backend", "numpy,other", "--json")
    run = shell("compare.py", "agree", *small, **installed)
    assert run.returncode == 0, run.stderr
    assert {row["backend"] for row in json.loads(run.stdout)["agreement"]} == {"numpy", "other"}
    assert port_file.with_name("used").exists()


def test_pytest_finds_an_installed_port(installed: dict[str, str]) -> None:
    run = shell(
        "-m",
        "pytest",
        "-q",
        "--port",
        "other",
        "tests/conformance/test_ports.py",
        "-k",
        "to_the_port_and_back",
        **installed,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{2 * len(ARRAYS)} passed" in run.stdout


NO_PORTS = [
    "nonsense",
    "NUMPY",
    "missing.py",
    "ports.nothing",
    "nobody.has_this",
    ".rel",
    "",
    "..",
    "a b",
    "numpy.",
    "/",
]


def refusal(name: str) -> str:
    with pytest.raises(PortError) as caught:
        ports.load(name)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", NO_PORTS)
def test_a_name_of_no_port_is_one_sentence(name: str) -> None:
    assert f"got {name!r}." in refusal(name)


@pytest.mark.parametrize("name", ["json", "os.path", "reference"])
def test_a_module_that_is_no_port_is_one_sentence(name: str) -> None:
    assert ".accuracy` must be a function (params, x, t), got None." in refusal(name)


@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
def test_an_absent_framework_is_a_reason_not_to_run(framework: str) -> None:
    code = (
        f"import sys; sys.modules[{framework!r}] = None\nimport ports\n"
        f"try: ports.load({framework!r})\nexcept ports.NotRunError as reason: print(reason)"
    )
    assert python(code) == f"{framework} is not installed."


def test_a_file_whose_framework_is_absent_is_not_run(port_file: Path) -> None:
    port_file.write_text("import a_framework_that_nobody_has\n")
    with pytest.raises(NotRunError, match=r"^a_framework_that_nobody_has is not installed\.$"):
        ports.load(str(port_file))


def test_a_framework_that_names_what_it_lacks_is_not_run(port_file: Path) -> None:
    lines = (
        "try:",
        "    import a_framework_that_nobody_has",
        "except ImportError as error:",
        "    raise ModuleNotFoundError('install it') from error",
    )
    port_file.write_text("\n".join(lines))
    with pytest.raises(NotRunError, match=r"^a_framework_that_nobody_has is not installed\.$"):
        ports.load(str(port_file))


def test_jax_without_jaxlib_is_not_run() -> None:
    pytest.importorskip("jax", reason="jax not run: it is not installed")
    code = (
        "import sys; sys.modules['jaxlib'] = None\nimport ports\n"
        "try: ports.load('jax')\nexcept ports.NotRunError as reason: print(reason)"
    )
    assert python(code) == "jaxlib is not installed."


NUMPY_PORT = "from ports.numpy_port import *\n"
BROKEN = {
    "a syntax error": ("def predict(:\n", "SyntaxError at fdnet_test_port.py:1: "),
    "bytes that are no text": ("\0", "SyntaxError at .*null bytes"),
    "a wrong name": (NUMPY_PORT + "undefined\n", "NameError at fdnet_test_port.py:2: name 'undefined' is not defined"),
    "an import that fails": ("from ports.numpy_port import nothing\n", "ImportError at fdnet_test_port.py:1: cannot"),
    "a module of ours that is missing": (
        "import ports.nothing\n",
        "ModuleNotFoundError at .*: No module named 'ports.noth",
    ),
    "a module that its framework lacks": (
        "import numpy.nothing\n",
        "ModuleNotFoundError at .*:1: No module named 'numpy.n",
    ),
    "an error of its own": ("raise RuntimeError('broken\\nby X.')\n", "RuntimeError at .*:1: broken by X"),
    "an exit": ("import sys\nsys.exit(0)\n", "SystemExit at fdnet_test_port.py:2: 0"),
    "devices that fail": (NUMPY_PORT + "def devices():\n    return 1 / 0", "ZeroDivisionError at .*:3: division by"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_port_is_one_sentence(case: str, port_file: Path) -> None:
    source, got = BROKEN[case]
    port_file.write_text(source)
    start = re.escape(f"The port {str(port_file)!r} must be importable, got ")
    message = refusal(str(port_file))
    assert re.match(start + got, message)
    assert not message.endswith("..")
    assert "fdnet_port_fdnet_test_port" not in sys.modules or case == "devices that fail"


def test_what_a_file_lacks_is_named(port_file: Path) -> None:
    port_file.write_text("from ports.numpy_port import predict\n")
    assert "fdnet_test_port.accuracy` must be a function (params, x, t), got None." in refusal(str(port_file))


def test_an_interrupt_is_passed_on(port_file: Path) -> None:
    port_file.write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        ports.load(str(port_file))


# --- copies to the port and back

ARRAYS = {
    "matrix": np.arange(12.0).reshape(3, 4) / 7,
    "large": np.random.default_rng(0).standard_normal((300, 70)),  # a small array may be copied for other reasons
    "float32": np.arange(5, dtype=np.float32) / 3,
    "integers": np.arange(6).reshape(2, 3),
    "transposed": np.arange(12.0).reshape(3, 4).T,
    "every other": np.arange(12.0)[::2],
    "backwards": np.arange(12.0)[::-1],
    "big-endian": np.arange(4, dtype=">f8"),
    "scalar": np.array(0.1),
    "empty": np.empty((0, 3)),
}


@pytest.mark.parametrize("case", ARRAYS)
@subjects()
def test_an_array_is_copied_to_the_port_and_back(subject: Subject, case: str) -> None:
    array = ARRAYS[case]
    back = subject.port.to_numpy(subject.port.from_numpy(array, dtype=subject.dtype, device=subject.device))
    assert (back.dtype, back.shape) == (subject.dtype, array.shape)
    np.testing.assert_array_equal(back, array.astype(subject.dtype))


@subjects()
def test_a_read_only_array_is_taken(subject: Subject) -> None:
    array = ARRAYS["matrix"].astype(subject.dtype)
    array.flags.writeable = False
    back = subject.port.to_numpy(subject.port.from_numpy(array, dtype=subject.dtype, device=subject.device))
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("size", [3, 4096])
@subjects()
def test_from_numpy_copies(subject: Subject, size: int) -> None:
    source = np.zeros(size, subject.dtype)
    array = subject.port.from_numpy(source, dtype=subject.dtype, device=subject.device)
    source[:] = 1
    assert not subject.port.to_numpy(array).any()


@pytest.mark.parametrize("size", [3, 4096])
@subjects()
def test_to_numpy_copies(subject: Subject, size: int) -> None:
    array = subject.port.from_numpy(np.zeros(size), dtype=subject.dtype, device=subject.device)
    subject.port.to_numpy(array)[:] = 1
    assert not subject.port.to_numpy(array).any()


@pytest.mark.parametrize("dtype", ["float16", "int64", "double", "", None])
@subjects("float64")
def test_another_dtype_is_refused(subject: Subject, dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"^`dtype` must be one of float64, float32, got"):
        subject.port.from_numpy(np.zeros(1), dtype=dtype, device=subject.device)


@pytest.mark.parametrize("device", ["tpu", "cpu:7", "", None])
@subjects("float64")
def test_another_device_is_refused(subject: Subject, device: Any) -> None:
    with pytest.raises(ValueError, match=rf"^`device` must be .*{subject.device}.*, got"):
        subject.port.from_numpy(np.zeros(1), dtype="float64", device=device)


@subjects("float32")
def test_each_device_can_be_used(subject: Subject) -> None:
    port = subject.port
    assert subject.device in port.devices()
    for device in ("auto", *port.devices()):
        assert port.to_numpy(port.from_numpy(np.ones(2), dtype="float32", device=device)).tolist() == [1, 1]


# --- settings that a call ignores and leaves as they are

NET = Problem(
    Params(np.full((5, 3), 0.1), np.array([0.1, -0.2, 0.3]), np.arange(6.0).reshape(3, 2) / 7, np.array([0.3, -0.1])),
    np.arange(35).reshape(7, 5) % 4 / 3,
    np.arange(7) % 2,
)


def everything(subject: Subject) -> list[np.ndarray]:
    """Call each function of a port once."""
    port, (params, x), t = subject.port, on_device(subject, NET), NET.t
    results = [port.predict(params, x), port.loss(params, x, t), port.accuracy(params, x, t)]
    for gradient in (port.gradient, *port.GRADIENTS.values()):
        results += gradient(params, x, t)
    trained, losses = port.train_steps(
        params, x, t, np.array([[0, 1], [2, 3]]), strategy="collocated", learning_rate=0.1
    )
    return [port.to_numpy(result) for result in (*results, *trained, losses)]


def digest(results: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(result.tobytes() for result in results)).hexdigest()


@subjects()
def test_results_have_the_dtype_of_the_net(subject: Subject) -> None:
    assert {str(result.dtype) for result in everything(subject)} == {subject.dtype}


@subjects("float64")
def test_synchronize_returns_its_argument(subject: Subject) -> None:
    params, x = on_device(subject, NET)
    for result in (x, params, (params, x)):
        assert subject.port.synchronize(result) is result


X64 = """
import jax, ports, test_ports
from comparison.agreement.comparison import Subject
subjects = [Subject("jax", ports.load("jax"), dtype, "cpu") for dtype in ("float64", "float32")]
results = [result for subject in subjects for result in test_ports.everything(subject)]
print({str(r.dtype) for r in results} == {"float64", "float32"}, jax.config.jax_enable_x64, test_ports.digest(results))
"""


def test_jax_has_float64_whatever_the_callers_flag() -> None:
    pytest.importorskip("jax", reason="jax not run: it is not installed")
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent)))
    printed = {flag: python(X64, JAX_ENABLE_X64=flag, PYTHONPATH=path).split() for flag in "01"}
    assert printed["0"][:2] == ["True", "False"]
    assert printed["1"][:2] == ["True", "True"]
    assert printed["0"][2] == printed["1"][2]


@subjects()
def test_a_call_leaves_the_settings_of_jax(subject: Subject) -> None:
    if subject.name != "jax":
        pytest.skip("a matter of jax")
    import jax

    for flag in (False, True):
        with jax.enable_x64(flag):
            everything(subject)
            with pytest.raises(ValueError, match="`h` must be"):
                subject.port.GRADIENTS["loop"](*on_device(subject, NET), NET.t, h=-1.0)
            assert jax.config.jax_enable_x64 == flag  # type: ignore[attr-defined]


@pytest.fixture
def torch() -> Iterator[Any]:
    """Give torch, whose settings are restored afterwards."""
    torch = pytest.importorskip("torch", reason="torch not run: it is not installed")
    dtype, precision = torch.get_default_dtype(), torch.backends.fp32_precision
    yield torch
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(True)
    torch.backends.fp32_precision = precision


def torch_settings(torch: Any) -> tuple[Any, ...]:
    of_products = (torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision)
    return torch.is_grad_enabled(), torch.get_default_dtype(), torch.backends.fp32_precision, of_products


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("precision", ["none", "ieee", "tf32"])
def test_a_call_leaves_the_settings_of_torch_and_ignores_them(torch: Any, dtype: str, precision: str) -> None:
    subject = Subject("torch", check_port(ports.load("torch")), dtype, "cpu")  # type: ignore[arg-type]
    expected = digest(everything(subject))
    for grad in (False, True):
        for default in (torch.float32, torch.float64):
            torch.set_grad_enabled(grad)
            torch.set_default_dtype(default)
            torch.backends.fp32_precision = precision
            before = torch_settings(torch)
            assert digest(everything(subject)) == expected
            with pytest.raises(ValueError, match="`h` must be"):
                subject.port.GRADIENTS["loop"](*on_device(subject, NET), NET.t, h=-1.0)
            assert torch_settings(torch) == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_call_ignores_the_default_device_of_torch(torch: Any, dtype: str) -> None:
    subject = Subject("torch", check_port(ports.load("torch")), dtype, "cpu")  # type: ignore[arg-type]
    expected = digest(everything(subject))
    subject.port.runtime._scalar_on.cache_clear()  # type: ignore[attr-defined]
    with torch.device("meta"):  # an array there has no numbers, and goes with none of another device
        assert digest(everything(subject)) == expected


def test_results_of_torch_require_no_gradient(torch: Any) -> None:
    port = ports.load("torch")
    params, x = on_device(Subject("torch", port, "float64", "cpu"), NET)
    for gradient in (port.gradient, *port.GRADIENTS.values()):
        assert not any(g.requires_grad for g in gradient(params, x, NET.t))
