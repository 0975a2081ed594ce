"""Where the results of a command go: stdout, pipes, files, and what can disturb them."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import compare
from command_lines import FEW_NETS, QUICK, run
from comparison import commands
from comparison.report.agreement_tables import markdown_cell

COMPARE = [sys.executable, FEW_NETS]
AGREE = (*QUICK, "--strategy", "collocated")
TRAIN = ("train", "--data", "random", "--batch", "50", "--hidden", "3", "--iterations", "3")
NOISY = """
import os
from ports.numpy_port import *
import ports.numpy_port as right


def loss(params, x, t):
    print("noise from Python")
    os.write(1, b"noise from C\\n")
    os.system("echo noise from a child")
    return right.loss(params, x, t)
"""


def shell(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, in which "$@" is compare.py with these arguments."""
    line = ["bash", "-c", command, "bash", *COMPARE, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["agree", "advise"])
def test_json_on_stdout_is_json_whatever_a_port_prints(command: str, tmp_path: Path) -> None:
    port = tmp_path / "noisy.py"
    port.write_text(NOISY)
    timing = ("--budget", "0.1") if command == "advise" else ()
    done = run(command, *AGREE[1:], *timing, "--port", str(port), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"] == command
    for kind in ("Python", "C", "a child"):
        assert f"noise from {kind}" in done.stderr


@pytest.mark.slow
def test_closed_streams() -> None:
    done = shell('"$@" >&-', *AGREE, "--json")
    sentence = "compare.py: `--json` must name a file where stdout is closed, got stdout.\n"
    assert (done.returncode, done.stderr) == (commands.BAD_INPUT, sentence)
    assert shell('"$@" >&-', *AGREE).returncode == 0
    assert shell('"$@" 2>&-', *AGREE).returncode == 0
    assert shell('"$@" <&-', *AGREE).returncode == 0


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_name_of_stdout_is_written_after_the_table(name: str, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run([*COMPARE, *AGREE, "--json", name], stdout=out, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    text = (tmp_path / "out").read_text()
    assert json.loads(text[text.index("{\n") : text.rindex("}") + 1])["command"] == "agree"
    assert "quantities agree" in text


@pytest.mark.parametrize(
    "arguments", [AGREE, (*AGREE, "--json"), TRAIN, (*TRAIN, "--json"), (*AGREE, "--json", "/dev/stdout")]
)
def test_a_closed_pipe_has_one_exit_code(arguments: tuple[str, ...]) -> None:
    done = shell('(sleep 0.5; "$@") | true; exit ${PIPESTATUS[0]}', *arguments)
    assert done.returncode == commands.PIPE_CLOSED
    assert done.stderr == ""


def test_the_exit_code_of_a_closed_pipe_is_in_the_help() -> None:
    assert str(commands.PIPE_CLOSED) in commands.EXIT_CODES


@pytest.mark.parametrize("name", ["a[bold]b", "c|d", ":warning:", "e[bold red]f"])
def test_names_are_shown_as_they_are(name: str, tmp_path: Path) -> None:
    port, summary = tmp_path / f"{name}.py", tmp_path / "summary"
    port.write_text("from ports.numpy_port import *\n")
    env = os.environ | {"GITHUB_STEP_SUMMARY": str(summary)}
    command = [*COMPARE, *AGREE, "--port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{name} float32" in done.stdout
    assert f"| {markdown_cell(name)} float32 |" in summary.read_text()
    bars = {line.replace("\\|", "").count("|") for line in summary.read_text().splitlines()}
    assert bars == {0, 9}  # of the verdict above the table, and of the table


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_colors_in_a_pipe_cut_no_table_and_put_no_bar_into_a_log(variable: str) -> None:
    done = run(*AGREE, **{variable: "1"})
    assert done.returncode == 0
    assert done.stderr == ""
    assert "copy to the port and back" in done.stdout
    trained = run(*TRAIN, "--backend", "numpy,torch", **{variable: "1"})
    assert trained.returncode == 0
    assert trained.stderr == ""


@pytest.mark.slow
def test_a_step_summary_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "summary", tmp_path):
        env = os.environ | {"GITHUB_STEP_SUMMARY": str(path)}
        done = subprocess.run([*COMPARE, *AGREE], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0
        assert done.stderr.startswith("compare.py: GITHUB_STEP_SUMMARY can't be written: ")
        assert done.stderr.count("\n") == 1


def test_a_name_that_is_not_utf_8_changes_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary")
    name = os.fsdecode(b"\xff.py")
    Path(name).write_text("from ports.numpy_port import *\n")
    assert compare.main([*AGREE, "--quiet", "--port", name]) == 0
    assert "| \\udcff float64 |" in Path("summary").read_text()


@pytest.mark.parametrize("option", ["--json", "--history", "--save", "--plot"])
def test_a_pipe_is_written_and_stays_a_pipe(option: str, tmp_path: Path) -> None:
    ending = {"--json": "json", "--history": "csv", "--save": "npz", "--plot": "PNG"}[option]
    pipe = tmp_path / f"pipe.{ending}"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    done = run(*TRAIN, "--quiet", option, str(pipe))
    reader.join(timeout=60)
    assert done.returncode == 0, done.stderr
    beginning = {"--json": b"{", "--history": b"backend", "--save": b"PK", "--plot": b"\x89PNG"}[option]
    assert got[0].startswith(beginning)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--json", "--history", "--save", "--plot", "--checkpoint"])
@pytest.mark.parametrize("kind", ["a dangling link", "a long name", "a folder"])
def test_what_cannot_be_written_is_refused_before_the_work(option: str, kind: str, tmp_path: Path) -> None:
    ending = {"--json": ".json", "--history": ".csv", "--save": ".npz", "--plot": ".png"}.get(option, ".npz")
    path = tmp_path / f"file{ending}"
    if kind == "a dangling link":
        path.symlink_to(tmp_path / "none" / "file")
    elif kind == "a folder":
        path.mkdir()
    else:
        path = tmp_path / f"{'x' * 249}{ending}"  # the names of two runs are longer still
    several = ("--backend", "numpy,torch") if kind == "a long name" else ()
    done = run(*TRAIN, *several, option, str(path))
    if kind == "a long name" and option not in ("--checkpoint", "--save"):
        assert done.returncode == 0
        return
    assert (done.returncode, done.stdout) == (commands.BAD_INPUT, "")
    assert done.stderr.count("\n") == 1
    assert ".fdnet-" not in done.stderr


@pytest.mark.slow
def test_figures_are_drawn_under_the_defaults_of_matplotlib(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: No Such Font\naxes.titlesize: 0.1\n")
    done = run(*TRAIN, "--quiet", "--plot", str(tmp_path / "a.png"), MATPLOTLIBRC=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    plain = run(*TRAIN, "--quiet", "--plot", str(tmp_path / "b.png"))
    assert plain.returncode == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
