"""`compare.py conform` on ports from outside that are wrong, or not there."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import compare
from conform_command import ROOT, conform

pytestmark = pytest.mark.slow

ONE = "test_ports.py::test_synchronize_returns_its_argument"
FLAWED = """
from ports.numpy_port import *
import ports.numpy_port as right

def collocated(params, x, t, *, h=1e-4, memory=1):
    return right.gradient(params, x, t)

GRADIENTS = {**right.GRADIENTS, "collocated": collocated}
"""
TWO_FAULTS = """
from ports.numpy_port import *
import ports.numpy_port as right

def loss(params, x, t):
    if len(x) == 1:
        raise TypeError("no sample is alone")
    return right.loss(params, x, t) + 1
"""
BROKEN_GPU = """
from ports.numpy_port import *
import ports.numpy_port as right

def devices():
    return ("gpu", "cpu")

def from_numpy(array, *, dtype, device):
    if device != "cpu":
        raise RuntimeError("the GPU is broken")
    return right.from_numpy(array, dtype=dtype, device=device)
"""
RUDE = """
import warnings
import numpy
from ports.numpy_port import *
import ports.numpy_port as right

def loss(params, x, t):
    numpy.seterr(invalid="ignore")
    numpy.random.seed(0)
    warnings.simplefilter("ignore")
    return right.loss(params, x, t)
"""
FAILURE = "test_agreement.py::test_gradient_where_no_term_is_to_spare[flawed-float64-collocated]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a wrong port, a port without its framework, and a configuration that would break pytest."""
    (tmp_path / "flawed.py").write_text(FLAWED)
    (tmp_path / "right.py").write_text("from ports.numpy_port import *\n")
    (tmp_path / "absent.py").write_text("import a_framework_that_nobody_has\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not mine to run')\n")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--no-such-option'\n")
    return tmp_path


# --- what is printed


def test_a_wrong_port_fails_with_a_sentence_for_each_failure_and_a_last_one(folder: Path) -> None:
    run = conform(folder, "flawed.py", "-k", "test_gradient and float64", "--junitxml=results.xml", "--examples=5")
    first, *_, last = run.stdout.splitlines()
    assert run.returncode == 1, run.stdout + run.stderr
    assert first == "What every port must pass, on flawed.py: float64 and float32, on cpu; 5 nets a property."
    assert re.search(rf"^FAILED {re.escape(FAILURE)}: flawed float64 collocated: ", run.stdout, re.MULTILINE)
    assert set(re.findall(r"^FAILED .*-(\w+)\]", run.stdout, re.MULTILINE)) == {"collocated"}
    counts, _, worst = last.partition("; ")
    assert re.fullmatch(r"flawed\.py: \d+ passed, \d+ failed", counts)
    assert re.fullmatch(r"the worst gap / bound: closed form \S+, loop \S+, batched \S+, .*collocated \S+\.", worst)
    suite = ET.parse(folder / "results.xml").getroot()[0]
    assert int(suite.get("failures", 0)) == run.stdout.count("\nFAILED ")


def test_several_failures_of_one_property_are_all_told(folder: Path) -> None:
    (folder / "two.py").write_text(TWO_FAULTS)
    run = conform(folder, "two.py", "test_agreement.py::test_forward", "-n", "0", "-k", "float64")
    assert run.returncode == 1, run.stdout + run.stderr
    failed = next(line for line in run.stdout.splitlines() if line.startswith("FAILED "))
    assert "no sample is alone" in failed
    assert "two float64 forward: loss is " in failed


def test_a_port_is_tested_on_the_cpu_or_on_the_device_that_is_named(folder: Path) -> None:
    (folder / "broken.py").write_text(BROKEN_GPU)
    run = conform(folder, "broken.py", "-k", "array_is_copied or trains or run")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.startswith("What every port must pass, on broken.py: float64 and float32, on cpu; ")
    run = conform(folder, "broken.py", "-k", "array_is_copied", "--device", "gpu")
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stdout.startswith("What every port must pass, on broken.py: float64 and float32, on gpu; ")
    run = conform(folder, "broken.py", "--device", "tpu")
    assert run.returncode == 2
    assert "ERROR: `device` must be auto or one of gpu, cpu here, got 'tpu'.\n" in run.stderr


def test_a_port_that_leaves_the_process_changed_fails(folder: Path) -> None:
    (folder / "rude.py").write_text(RUDE)
    run = conform(folder, "rude.py", "test_process.py", "-n", "0")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "a call has changed NumPy's error state, NumPy's generator, filters of all warnings" in run.stdout


LOUD = {
    "NumPy's print options": "numpy.set_printoptions(precision=3)",
    "torch's default dtype": "torch.set_default_dtype(torch.float64)",
    "torch's threads": "torch.set_num_threads(1)",
}


@pytest.mark.parametrize("name", LOUD)
def test_a_port_leaves_the_process_as_it_was_when_it_is_loaded(name: str, folder: Path) -> None:
    pytest.importorskip("torch")
    (folder / "loud.py").write_text(f"import numpy, torch\nfrom ports.numpy_port import *\n{LOUD[name]}\n")
    run = conform(folder, "loud.py", "test_process.py", "-n", "0")
    assert run.returncode == 1, run.stdout + run.stderr
    assert f"loading the port has changed {name}\n" in run.stdout


def test_failures_are_annotations_of_the_ports_file(folder: Path) -> None:
    summary = folder / "summary"
    options = ("-k", "no_term_is_to_spare", "-x")
    run = conform(folder, "flawed.py", *options, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert run.stderr.startswith(f"::error file=flawed.py,line=1,title=fdnet conform::{FAILURE}: flawed ")
    assert run.stdout.splitlines()[-1] in summary.read_text()


def test_a_comma_in_the_name_of_a_file_is_escaped(folder: Path) -> None:
    (folder / "a,b.py").write_text(FLAWED)
    run = conform(folder, "a,b.py", "-k", "no_term_is_to_spare", "-x", GITHUB_ACTIONS="true")
    assert run.stderr.startswith("::error file=a%2Cb.py,line=1,title=fdnet conform::")


@pytest.mark.parametrize(
    ("warning", "code"),
    [
        ("warnings.warn('mine', DeprecationWarning)", 1),
        ("np.float64(1) / np.float64(0)", 1),
        ("exec(compile('import warnings; warnings.warn(str(), DeprecationWarning)', 'framework.py', 'exec'), {})", 0),
    ],
    ids=["of the port", "of its arithmetic", "of a framework"],
)
def test_warnings_of_the_port_are_failures(folder: Path, warning: str, code: int) -> None:
    lines = "from ports.numpy_port import *\nimport warnings, numpy as np\n\ndef synchronize(result):\n"
    (folder / "warner.py").write_text(f"{lines}    {warning}\n    return result\n")
    assert conform(folder, "warner.py", ONE).returncode == code


@pytest.mark.parametrize("ambient", [{"PYTEST_ADDOPTS": "--no-such-option"}, {"PYTEST_PLUGINS": "no_such_plugin"}])
def test_the_callers_configuration_has_no_say_and_nothing_is_left_behind(folder: Path, ambient: dict[str, str]) -> None:
    before = sorted(folder.iterdir())
    run = conform(folder, "right.py", ONE, PYTHONDONTWRITEBYTECODE="1", **ambient)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "right.py: 1 passed."
    assert sorted(folder.iterdir()) == before


def test_a_wrong_port_fails_where_python_leaves_assertions_out(folder: Path) -> None:
    run = conform(folder, "flawed.py", "-k", "no_term_is_to_spare and float64", "-n", "0", PYTHONOPTIMIZE="2")
    assert run.returncode == 1, run.stdout + run.stderr


def test_only_what_runs_on_the_port_is_collected(folder: Path) -> None:
    run = conform(folder, "right.py", "--collect-only")
    tests = re.findall(r"^(test_\w+\.py)::\w+\[(\S*?)-float", run.stdout, re.MULTILINE)
    assert {name for _, name in tests} == {"right"}
    assert len({file for file, _ in tests}) == len(list((ROOT / "comparison/conformance").glob("test_*.py")))


# --- what is known to fail


def test_a_failure_that_is_known_passes(folder: Path) -> None:
    (folder / "known").write_text(f"# known\n\n{FAILURE} it is the closed form\n")
    run = conform(folder, "flawed.py", "-k", "no_term_is_to_spare and collocated", "--xfails", "known")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].startswith("flawed.py: 1 xfailed")


def test_a_known_failure_that_passes_is_a_failure(folder: Path) -> None:
    (folder / "known").write_text(f"{ONE} it was mended\n")
    run = conform(folder, "right.py", "--xfails=known", "-k", "synchronize")
    assert run.returncode == 1
    assert "FAILED test_ports.py::test_synchronize_returns_its_argument[right-float64]: [XPASS(strict)]" in run.stdout


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("test_ports.py::test_nothing a reason", "`--xfails` must name tests, got 'test_ports.py::test_nothing'."),
        (ONE, "`--xfails` must have a test id and a reason in each line, got 'test_ports.py::"),
    ],
)
def test_a_line_of_known_failures_must_name_a_test_and_a_reason(folder: Path, line: str, sentence: str) -> None:
    (folder / "known").write_text(line + "\n")
    run = conform(folder, "right.py", "--xfails=known")
    assert run.returncode == 2
    assert sentence in run.stdout + run.stderr


# --- what can't be run


def test_a_port_that_cannot_be_loaded_is_a_failure(folder: Path) -> None:
    run = conform(folder, "absent.py")
    assert run.returncode == 2
    assert run.stdout == ""
    reason = "a_framework_that_nobody_has is not installed."
    assert run.stderr == f"compare.py: absent.py can't be run: {reason} (--allow-missing lets that pass.)\n"
    run = conform(folder, "absent.py", "--allow-missing")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"absent.py was not run: {reason}\n", "")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "from ports.numpy_port import predict\n",
            "`fdnet_port_broken.accuracy` must be a function (params, x, t), got",
        ),
        ("def predict(:\n", "The port 'broken.py' must be importable, got SyntaxError at broken.py:1: "),
        (
            "from ports.numpy_port import *\ndef loss(params, x): pass\n",
            "`fdnet_port_broken.loss` must take (params, x, t), got (params, x).",
        ),
    ],
)
def test_a_broken_port_is_one_sentence_and_never_allowed(source: str, sentence: str, folder: Path) -> None:
    (folder / "broken.py").write_text(source)
    run = conform(folder, "broken.py", "--allow-missing")
    assert run.returncode == 2
    assert f"ERROR: {sentence}" in run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_no_test_is_no_success(folder: Path) -> None:
    run = conform(folder, "right.py", "-k", "no_test_has_this_name")
    assert run.returncode == 2
    assert "right.py: no test was run (none was selected)." in run.stdout


def test_skipped_tests_are_no_success(folder: Path) -> None:
    run = conform(folder, "right.py", "test_bad_input.py::test_mixed_devices_are_a_value_error")
    assert run.returncode == 2
    assert run.stdout.splitlines()[-1] == "right.py: no test was run (1 skipped)."


def test_what_only_prints_is_no_success(folder: Path) -> None:
    run = conform(folder, "right.py", "--version")
    assert (run.returncode, run.stdout.splitlines()[-1]) == (2, "right.py: no test was run.")


def test_the_list_of_known_failures_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = folder / "known"
    known.write_text(f"{ONE} a reason\n")
    assert compare.main(["conform", "numpy", "--xfails", str(known), "--junitxml", str(known)]) == 2
    expected = f"`--junitxml` must name a file of its own, got {str(known)!r}, which is --xfails's too."
    assert capsys.readouterr().err == f"compare.py: {expected}\n"


def test_known_failures_that_are_no_text_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "known").write_bytes(b"\xff a reason\n")
    assert compare.main(["conform", "numpy", "--xfails", str(folder / "known")]) == 2
    assert capsys.readouterr().err == f"compare.py: `--xfails` must be text in UTF-8, got {str(folder / 'known')!r}.\n"


def test_a_closed_stdout_is_no_crash(folder: Path) -> None:
    line = ["bash", "-c", '"$@" >&-', "bash", sys.executable, str(ROOT / "compare.py")]
    done = subprocess.run([*line, "conform", "right.py", ONE, "-n", "0"], cwd=folder, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_is_not_utf_8_is_run_in_one_process(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"\xff.py")
    (folder / name).write_text("from ports.numpy_port import *\n")
    summary = folder / "summary"
    run = conform(
        folder, name, ONE, GITHUB_STEP_SUMMARY=str(summary), PYTHONUTF8="1", PYTHONIOENCODING=":backslashreplace"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert summary.read_text() == "\n\\udcff.py: 1 passed.\n"
    assert compare.main(["conform", name, "-n", "2"]) == 2
    assert "`-n` must be left out with a port whose name is not UTF-8, got " in capsys.readouterr().err


def test_a_step_summary_that_cannot_be_written_is_a_warning(folder: Path) -> None:
    run = conform(folder, "right.py", ONE, "-n", "0", GITHUB_STEP_SUMMARY=str(folder))
    assert run.returncode == 0
    assert run.stderr == f"compare.py: GITHUB_STEP_SUMMARY can't be written: Is a directory: {str(folder)!r}.\n"
    assert run.stdout.splitlines()[-1] == "right.py: 1 passed."


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_first_failure_ends_it_as_a_failure(folder: Path, workers: str) -> None:
    run = conform(folder, "flawed.py", "-x", "-k", "no_term_is_to_spare", "-n", workers)
    assert run.returncode == 1, run.stdout + run.stderr
    assert re.match(r"flawed\.py: .*[12] failed", run.stdout.splitlines()[-1])


def test_a_test_file_that_is_not_there_is_bad_input_and_the_callers_folder_is_not_looked_at(folder: Path) -> None:
    run = conform(folder, "right.py", "test_nosuch.py::test_it")
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(r"compare\.py: A test file must be one of test_.*, got test_nosuch\.py\.\n", run.stderr)
    run = conform(folder, "missing.py")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "compare.py: A port's file must exist, got 'missing.py'.\n"


def test_a_port_may_import_what_lies_beside_it(folder: Path) -> None:
    (folder / "of_two_files.py").write_text("from right import *\n")
    run = conform(folder, "of_two_files.py", ONE, "--allow-missing")
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, "of_two_files.py: 1 passed.")


def test_an_unknown_option_of_another_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(["agree", "--nonsense"])
    assert capsys.readouterr().err == "compare.py: unrecognized arguments: --nonsense; see compare.py agree --help.\n"
