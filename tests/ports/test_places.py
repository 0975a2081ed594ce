"""A port is found by its name, or is given itself; it can be found again; and its errors name its own line."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ports
from ports.registry import describe_error, reloadable, resolve

RAISING = "from ports.numpy_port import *\n\n\ndef loss(params, x, t):\n    return {}\n"


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Import modules from a folder, and forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def load(file: str, code: str, name: str) -> Any:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        return ports.load(name if name else str(path))

    yield load
    for name in sys.modules.keys() - before:
        del sys.modules[name]


def error_of(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


@pytest.mark.parametrize("name", ["numpy", Path(ports.__file__).parents[1] / "tests/examples/array_api_port.py"])
def test_a_name_or_a_path_is_loaded(name: str | Path) -> None:
    assert resolve(name).__name__ in ("ports.numpy_port", "fdnet_port_array_api_port")


def test_a_port_is_taken_as_it_is() -> None:
    port = SimpleNamespace(**vars(ports.load("numpy")))
    assert resolve(port) is port
    assert reloadable(port, port) is port


@pytest.mark.parametrize("thing", [None, 3, object(), {"loss": 1}])
def test_what_is_no_port_is_one_sentence(thing: Any) -> None:
    with pytest.raises(ports.PortError) as caught:
        resolve(thing)
    assert str(caught.value) == f"`backend` must be the name of a backend or a port itself, got {thing!r}."


def test_what_a_port_itself_lacks_is_named() -> None:
    lacking = SimpleNamespace(loss=ports.load("numpy").loss)
    with pytest.raises(ports.PortError, match="accuracy` must be a function"):
        resolve(lacking)


def test_a_port_is_found_again(imported: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = ports.load("numpy")
    assert reloadable("numpy", numpy) == "numpy"
    assert reloadable(numpy, numpy) == "ports.numpy_port"
    port = imported("a_port.py", "from ports.numpy_port import *\n", "")
    monkeypatch.chdir(tmp_path)
    for given in ("a_port.py", Path("a_port.py"), port):
        assert reloadable(given, port) == str(tmp_path.resolve() / "a_port.py")


def test_an_error_is_described_by_the_line_of_the_ports_own_file(imported: Callable[..., Any], tmp_path: Path) -> None:
    """And not by the line of NumPy's that raised it, or of the caller."""
    code = RAISING.format("right(params, x, t)").replace("loss", "wrong", 1)
    code = code.replace(
        "\n\n\n", "\nimport numpy as np\n\n\ndef right(params, x, t):\n    return np.zeros(-1)\n\n\n", 1
    )
    port: Any = imported("a_port.py", code, "")
    error = error_of(lambda: port.wrong(1, 2, 3))
    file = str(tmp_path / "a_port.py")
    assert describe_error(error, file) == "ValueError at a_port.py:6: negative dimensions are not allowed"
    assert describe_error(error, "").startswith("ValueError at a_port.py:6: ")


def test_an_error_that_another_library_raises_is_described_by_the_ports_last_line(
    imported: Callable[..., Any], tmp_path: Path
) -> None:
    code = RAISING.format("json.loads('nothing')").replace("\n\n\n", "\nimport json\n\n\n", 1)
    port = imported("a_port.py", code, "")
    error = error_of(lambda: port.loss(1, 2, 3))
    assert describe_error(error, str(tmp_path / "a_port.py")).startswith("JSONDecodeError at a_port.py:6: Expecting")
    assert describe_error(error).startswith("JSONDecodeError at decoder.py:")


@pytest.mark.parametrize(
    ("file", "name", "shown"),
    [
        ("fdnet_a_module.py", "fdnet_a_module", "fdnet_a_module.py:6"),
        ("fdnet_a_package/__init__.py", "fdnet_a_package", "__init__.py:6"),
    ],
)
def test_a_module_and_a_package_have_places_too(file: str, name: str, shown: str, imported: Callable[..., Any]) -> None:
    code = RAISING.format("json.loads('nothing')").replace("\n\n\n", "\nimport json\n\n\n", 1)
    port = imported(file, code, name)
    error = error_of(lambda: port.loss(1, 2, 3))
    assert describe_error(error, name).startswith(f"JSONDecodeError at {shown}: ")


def test_the_helper_of_a_package_is_its_own(imported: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "fdnet_a_package").mkdir()
    (tmp_path / "fdnet_a_package/helper.py").write_text(
        "import json\n\n\ndef read():\n    return json.loads('nothing')\n"
    )
    code = RAISING.format("helper.read()").replace("\n\n\n", "\nfrom fdnet_a_package import helper\n\n\n", 1)
    port = imported("fdnet_a_package/__init__.py", code, "fdnet_a_package")
    error = error_of(lambda: port.loss(1, 2, 3))
    assert describe_error(error, "fdnet_a_package").startswith("JSONDecodeError at helper.py:5: ")


def test_an_error_of_syntax_is_described_by_the_line_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "a_port.py"
    file.write_text("x = 1\n\ndef f(:\n    pass\n")
    with pytest.raises(ports.PortError) as caught:
        ports.load(str(file))
    assert str(caught.value).endswith("must be importable, got SyntaxError at a_port.py:3: invalid syntax.")


def test_an_error_without_words_is_described_by_its_name_and_place(
    imported: Callable[..., Any], tmp_path: Path
) -> None:
    port = imported("a_port.py", RAISING.format("1 + [][0] if t else next(iter(()))"), "")
    error = error_of(lambda: port.loss(1, 2, 0))
    assert describe_error(error, str(tmp_path / "a_port.py")) == "StopIteration at a_port.py:5"


WORDLESS = "class WordlessError(Exception):\n    def __str__(self):\n        raise RuntimeError('no words')\n\n\n"


def test_an_error_that_fails_to_describe_itself_is_described_too(imported: Callable[..., Any], tmp_path: Path) -> None:
    code = WORDLESS + RAISING.format("wordless()").replace(
        "\n\n\n", "\n\n\ndef wordless():\n    raise WordlessError\n\n\n"
    )
    port: Any = imported("a_port.py", code, "")
    error = error_of(lambda: port.loss(1, 2, 3))
    assert describe_error(error, str(tmp_path / "a_port.py")) == "WordlessError at a_port.py:10"
    (tmp_path / "no_port.py").write_text(WORDLESS + "raise WordlessError\n")
    with pytest.raises(ports.PortError, match=r"must be importable, got WordlessError at no_port\.py:6\.$"):
        ports.load(str(tmp_path / "no_port.py"))
