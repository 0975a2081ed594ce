"""What the package promises about finding and loading a backend."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

import compare
import ports
from command_lines import SMALL
from comparison import commands
from comparison.conformance.problems import loaded
from interpreters import python, shell
from ports import NotRunError
from ports.protocol import PortError

FRAMEWORKS = {"jax", "torch"}


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
    assert ports.load(port_file).__file__ == str(port_file)  # type: ignore[attr-defined]
    assert ports.TwoLayerNet(2, 3, 2, backend=port_file).params["W1"].shape == (2, 3)


def test_a_file_may_import_what_lies_beside_it_and_the_path_stays_as_it_was(port_file: Path) -> None:
    (port_file.parent / "fdnet_test_sibling.py").write_text(PORT)
    (port_file.parent / "numpy.py").write_text("raise RuntimeError('not NumPy')\n")
    port_file.write_text("from fdnet_test_sibling import *\nimport numpy.linalg\n")
    before = list(sys.path)
    try:
        assert ports.load(str(port_file)).GRADIENTS is ports.load("numpy").GRADIENTS
    finally:
        sys.modules.pop("fdnet_test_sibling", None)
    assert sys.path == before


@pytest.mark.parametrize("helper", ["fdnet_test_helper.py", "fdnet_test_helper/__init__.py", "fdnet_test_helper/a.py"])
def test_each_of_two_ports_imports_its_own_of_two_files_of_one_name(helper: str, tmp_path: Path) -> None:
    module = helper.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for name in ("one", "other"):
        (tmp_path / name / helper).parent.mkdir(parents=True)
        (tmp_path / name / helper).write_text(f"NAME = {name!r}\n")
        (tmp_path / name / "port.py").write_text(f"{PORT}from {module} import NAME\n")
    try:
        found = [ports.load(tmp_path / name / "port.py").NAME for name in ("one", "other", "one")]  # type: ignore[attr-defined]
    finally:
        for loaded in [loaded for loaded in sys.modules if loaded.startswith("fdnet_test_helper")]:
            del sys.modules[loaded]
    assert found == ["one", "other", "one"]


def test_what_a_port_puts_among_the_modules_need_be_no_module(tmp_path: Path) -> None:
    """PyTorch has such an object: it has an attribute of any name."""
    odd = (
        "import sys\nclass Odd:\n    def __getattr__(self, name): return self\nsys.modules['fdnet_test_odd'] = Odd()\n"
    )
    for name in ("one", "other"):
        (tmp_path / name / "fdnet_test_odd").mkdir(parents=True)
        (tmp_path / name / "port.py").write_text(PORT + odd)
    try:
        loaded = [ports.load(tmp_path / name / "port.py") for name in ("one", "other")]
    finally:
        del sys.modules["fdnet_test_odd"]
    assert [port.GRADIENTS for port in loaded] == [ports.load("numpy").GRADIENTS] * 2


def test_what_was_imported_before_a_port_is_not_taken_away_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own packages are such modules, where the first port lies in their folder and the second beside namesakes."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fdnet_test_ours.py").write_text("")
        (tmp_path / name / "port.py").write_text(PORT)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "one")
        ours = importlib.import_module("fdnet_test_ours")
    try:
        for name in ("one", "other"):
            ports.load(tmp_path / name / "port.py")
        assert sys.modules["fdnet_test_ours"] is ours
    finally:
        del sys.modules["fdnet_test_ours"]


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
    assert "must be one of numpy, torch, jax, torch-compiled, other, a module or a .py file" in refusal("stranger")


def test_an_entry_point_may_name_an_attribute(port_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port_file.write_text("from ports import numpy_port as inner\n")
    install(port_file.parent, "other = fdnet_test_port:inner\nnothing = fdnet_test_port:outer\ngone = fdnet_gone")
    monkeypatch.syspath_prepend(str(port_file.parent))
    assert ports.load("other") is ports.load("numpy")
    assert "AttributeError" in refusal("nothing")
    assert refusal("gone") == "The module of the installed port 'gone' must exist, got 'fdnet_gone'."


@pytest.fixture
def installed(port_file: Path) -> dict[str, str]:
    """Give the environment of an interpreter that finds a port `other` installed, which records that it was used."""
    port_file.write_text(PORT + f"open({str(port_file.with_name('used'))!r}, 'a').close()\n")
    install(port_file.parent, "other = fdnet_test_port")
    return {"PYTHONPATH": str(port_file.parent), "HYPOTHESIS_PROFILE": "dev"}


@pytest.mark.slow
def test_compare_finds_an_installed_port(installed: dict[str, str], port_file: Path) -> None:
    run = shell("compare.py", *SMALL[:-1], "numpy,other", "--json", **installed)
    assert run.returncode == 0, run.stderr
    assert {row["backend"] for row in json.loads(run.stdout)["agreement"]} == {"numpy", "other"}
    assert port_file.with_name("used").exists()


NO_PORTS = [
    None,
    3,
    b"x",
    "\0.py",
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


def refusal(name: Any) -> str:
    with pytest.raises(PortError) as caught:
        ports.load(name)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", NO_PORTS)
def test_a_name_of_no_port_is_one_sentence(name: Any) -> None:
    assert f"got {name!r}." in refusal(name)


def test_a_name_longer_than_a_files_may_be_is_one_sentence() -> None:
    assert refusal("x" * 300 + ".py").startswith("A port's file must exist, got ")


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("JAX_PLATFORMS", "nonsense", "nonsense"),
        ("JAX_PLATFORMS", "cuda", "cuda"),
        ("XLA_FLAGS", "--xla_nonsense=1", "jax does not work here: Unknown flag in XLA_FLAGS: --xla_nonsense=1"),
    ],
)
def test_settings_that_jax_does_not_bear_are_a_reason_not_to_run(name: str, value: str, words: str) -> None:
    pytest.importorskip("jax", reason="jax not run: it is not installed")
    done = shell(
        "compare.py", *SMALL, "--backend", "numpy,jax", "--strategy", "collocated", "--allow-missing", **{name: value}
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("jax: not run: "))
    assert words in line
    assert "quantities agree" in done.stdout


def test_an_installed_port_that_is_broken_is_a_row_unless_it_was_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = EntryPoint("broken", "fdnet_nothing", "fdnet.ports")
    monkeypatch.setattr("ports.registry.entry_points", lambda **_: EntryPoints([broken]))
    monkeypatch.setattr("ports.registry.BUILT_IN", ("numpy",))
    sentence = "The module of the installed port 'broken' must exist, got 'fdnet_nothing'."
    assert compare.main([*SMALL[:-2], "--strategy", "collocated"]) == 0
    assert f"broken: not run: {sentence}" in capsys.readouterr().out
    assert compare.main([*SMALL[:-1], "numpy,broken"]) == commands.BAD_INPUT
    assert capsys.readouterr().err == f"compare.py: {sentence}\n"


def test_devices_that_fail_later_are_one_sentence(port_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port_file.write_text(PORT + "answers = [('cpu',)]\ndef devices():\n    return answers.pop()\n")
    assert compare.main([*SMALL, "--port", str(port_file)]) == commands.BAD_INPUT
    sentence = capsys.readouterr().err
    assert sentence.startswith("compare.py: The port ")
    assert sentence.endswith(
        "_port.py' must be importable, got IndexError at fdnet_test_port.py:5: pop from empty list.\n"
    )
