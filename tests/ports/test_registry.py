"""A framework that is not there, or does not work here, is a reason not to run; a broken port is an error."""

import sys
import textwrap
from pathlib import Path

import pytest

import ports
from reference.validation import check_device


def write(path: Path, code: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))
    return path


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    return tmp_path / "site-packages"


FAILURES = {
    "a library that is missing": "raise OSError('libcudart.so.12: cannot open shared object file')",
    "another version": "raise ImportError('jaxlib is version 0.4.0, but this version of jax requires 0.10')",
    "a platform that is missing": "raise RuntimeError('Unable to initialize backend')",
    "an exit": "raise SystemExit('no device')",
    "another module": "import a_module_that_is_missing",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_framework_that_does_not_work_is_a_reason_not_to_run(
    failure: str, tmp_path: Path, site_packages: Path
) -> None:
    write(site_packages / "a_framework/__init__.py", FAILURES[failure])
    port = write(tmp_path / "port.py", "import numpy\nimport a_framework\n")
    with pytest.raises(ports.NotRunError) as caught:
        ports.load(str(port))
    sentence = str(caught.value)
    if "import " in FAILURES[failure]:
        assert sentence == "a_module_that_is_missing is not installed."
    else:
        assert sentence.startswith("a_framework does not work here: ")
        assert FAILURES[failure].split("'")[1] in sentence
    sys.modules.pop("a_framework", None)


@pytest.mark.parametrize(
    "code",
    [
        "import numpy as np\nnp.zeros(-1)",  # the framework raises, the port is wrong
        "from numpy import a_name_that_is_missing",
        "import helper",
        "1 / 0",
        "def f(:",
    ],
)
def test_a_broken_port_is_an_error(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "helper.py", "raise OSError('the helper is wrong')")
    port = write(tmp_path / "port.py", code)
    with pytest.raises(ports.PortError, match=r"must be importable, got .* at .*\.$"):
        ports.load(str(port))
    sys.modules.pop("helper", None)


OWN_FAILURES = {
    "a library that is missing": (
        "raise OSError('libcudart.so.12: cannot open shared object file')",
        "OSError: libcud",
    ),
    "a module that is missing": ("", "ModuleNotFoundError: No module named 'torch._C"),
    "a name that is missing": ("import sys\nsys.modules['torch._C'] = sys", "ImportError: cannot import name "),
    "a file that is damaged": ("def f(:", "SyntaxError: invalid syntax"),
    "an error without words": ("assert False", "AssertionError$"),
}


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torch" or name.startswith("ports.torch_port")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("failure", OWN_FAILURES)
def test_the_frameworks_of_built_in_ports_fail_as_a_reason_not_to_run(failure: str, site_packages: Path) -> None:
    code, words = OWN_FAILURES[failure]
    write(site_packages / "torch/__init__.py", f"Tensor = object\n{code}")
    try:
        with pytest.raises(ports.NotRunError, match=f"^torch does not work here: {words}"):
            ports.load("torch")
    finally:
        sys.modules.pop("torch._C", None)


def test_an_error_of_our_own_code_stays_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ports.numpy_port.devices", lambda: check_device("gpu", ("cpu",)))
    with pytest.raises(ports.PortError, match=r"^The port 'numpy' must be importable, got DeviceError at validation"):
        ports.load("numpy")
    monkeypatch.delattr("ports.protocol.STRATEGIES")
    with pytest.raises(ports.PortError, match=r"^The port 'numpy' must be importable, got NameError at protocol"):
        ports.load("numpy")
