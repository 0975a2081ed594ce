"""The wheel, in a clean environment and beside a folder full of decoys, does what a checkout does."""

import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import ports

pytestmark = pytest.mark.slow

ROOT = Path(ports.__file__).parents[1]
DECOYS = ("ports", "reference", "comparison", "compare.py", "fdnet.py", "conftest.py")
SMALL = ("--data", "random", "--batch", "6", "--hidden", "3", "--backend", "numpy", "--quiet")
PORT = "from ports.numpy_port import *\n"


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GITHUB_", "FDNET_"))}
    return subprocess.run(command, cwd=folder, env=env | environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder))
    done = run(*pip, str(copy_of_the_source(folder / "source")), folder=folder)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("fdnet-*.whl"))


def copy_of_the_source(folder: Path) -> Path:
    """Copy what git tracks: a build leaves files in the folder that it builds."""
    files = run("git", "ls-files", "-z", folder=ROOT).stdout.split("\0")
    for file in filter(None, files):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes((ROOT / file).read_bytes())
    return folder


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, and a port as an entry point, beside the frameworks of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    own = [path for path in sys.path if path.endswith("site-packages")] or site.getsitepackages()
    (packages / "frameworks.pth").write_text("\n".join(own) + "\n")
    (packages / "an_installed_port.py").write_text(PORT)
    metadata = packages / "another-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[fdnet.ports]\nanother = an_installed_port\n")
    script = folder / "bin/fdnet"  # as pip writes it from [project.scripts]
    script.write_text(f"#!{folder}/bin/python\nimport sys\nfrom fdnet import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return folder / "bin"


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    for name in DECOYS:
        path = tmp_path / name if name.endswith(".py") else tmp_path / name / "__init__.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit('a decoy was imported')\n")
    (tmp_path / "mine.py").write_text(PORT)
    return tmp_path


def test_the_wheel_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        script = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    tracked = run("git", "ls-files", "reference", "ports", "comparison", "compare.py", "fdnet.py", folder=ROOT)
    assert set(tracked.stdout.split()) <= names
    assert "fdnet = fdnet:main" in script
    assert "pytest11" not in script  # no session of anybody's else has a plugin of ours
    assert not any(name.startswith("tests/") for name in names)


@pytest.mark.parametrize("ambient", [{}, {"PYTHONPATH": "."}], ids=["", "PYTHONPATH"])
def test_the_console_command_runs_beside_decoys(scripts: Path, decoys: Path, ambient: dict[str, str]) -> None:
    if ambient:
        (decoys / "fdnet.py").unlink()  # whoever puts one on PYTHONPATH asks for it
    done = run(str(scripts / "fdnet"), "agree", *SMALL, "--port", "mine.py", folder=decoys, **ambient)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(str(scripts / "fdnet"), "agre", folder=decoys, **ambient)
    assert (done.returncode, done.stderr[:26]) == (2, "fdnet: there is no command")


@pytest.mark.parametrize("port", ["mine.py", "another"])
def test_conform_runs_beside_decoys(scripts: Path, decoys: Path, port: str) -> None:
    options = ("-k", "test_forward or test_a_repeated_call_gives_the_same_bits_here", "--examples=2")
    done = run(str(scripts / "fdnet"), "conform", port, *options, folder=decoys)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{port}: 3 passed; the worst gap / bound: forward 0.")


def test_a_ports_author_has_its_types(scripts: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "typed.py").write_text(
        "from ports.protocol import Port\nimport ports\n\nport: Port = ports.load('numpy')\n"
    )
    done = run(str(scripts / "python"), "-P", "-m", "mypy", "--strict", "typed.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
