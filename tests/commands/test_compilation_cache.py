"""JAX's programs are kept between commands, and whatever becomes of the folder costs no more than compiling again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compare
from comparison.commands import compilation_cache, subjects

pytest.importorskip("jax")
ROOT = Path(compare.__file__).parent
COMPILE = """
from comparison.commands.compilation_cache import use_compilation_cache
use_compilation_cache()
import ports
ports.load("jax")
"""


def compile_canary(**environment: str) -> subprocess.CompletedProcess[str]:
    """Load JAX's port, which compiles a few programs, in a process that starts with none of these variables."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=ROOT, env=env | environment, capture_output=True, text=True, check=True
    )


def programs(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*-cache")}


@pytest.mark.slow
def test_what_was_compiled_is_found_again(tmp_path: Path) -> None:
    compile_canary(FDNET_CACHE=str(tmp_path))
    compiled = programs(tmp_path)
    assert compiled
    log = compile_canary(FDNET_CACHE=str(tmp_path), JAX_LOGGING_LEVEL="DEBUG").stderr
    assert programs(tmp_path) == compiled
    assert log.count("Persistent compilation cache hit") >= len(compiled)


@pytest.mark.slow
def test_a_corrupt_cache_is_compiled_anew_without_a_word(tmp_path: Path) -> None:
    compile_canary(FDNET_CACHE=str(tmp_path))
    for path in programs(tmp_path):
        path.write_bytes(path.read_bytes()[:100])
    assert compile_canary(FDNET_CACHE=str(tmp_path)).stderr == ""


def test_a_folder_that_cannot_be_made_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert compile_canary(FDNET_CACHE=str(tmp_path / "file")).stderr == ""


def test_without_a_home_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in compilation_cache.OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FDNET_CACHE", "~a-user-that-nobody-has/cache")
    compilation_cache.use_compilation_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.parametrize("name", ["JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR"])
def test_the_variables_of_jax_decide(name: str, tmp_path: Path) -> None:
    value = "false" if "ENABLE" in name else str(tmp_path / "elsewhere")
    compile_canary(FDNET_CACHE=str(tmp_path / "ours"), **{name: value})
    assert not (tmp_path / "ours").exists()


def test_each_processor_has_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.commands.output.processor", lambda: "one")
    one = compilation_cache.cache_folder()
    monkeypatch.setattr("comparison.commands.output.processor", lambda: "another")
    assert compilation_cache.cache_folder() != one
    assert compilation_cache.cache_folder().parent == one.parent


@pytest.mark.parametrize(("option", "calls"), [([], 1), (["--no-cache"], 0)])
def test_no_cache_is_an_option(option: list[str], calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[None] = []
    monkeypatch.setattr(subjects, "use_compilation_cache", lambda: used.append(None))
    small = ["agree", "--data", "random", "--batch", "6", "--hidden", "3", "--backend", "numpy", "--quiet"]
    assert compare.main([*small, *option]) == 0
    assert len(used) == calls
