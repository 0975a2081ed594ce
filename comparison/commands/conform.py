"""`compare.py conform`: run what every port must pass on one port, in pytest."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comparison
from comparison.commands import AGREES, BAD_INPUT, CRASHED, DISAGREES, INTERRUPTED, argument_types
from comparison.commands.compilation_cache import use_compilation_cache
from comparison.commands.file_options import check_files_differ
from comparison.commands.options import PortOptions, new_command
from comparison.commands.output import annotate, append_to_step_summary

HOME = Path(comparison.__file__).parents[1]
TESTS = HOME / "comparison/conformance"
EXAMPLES = 25
WORKER_DIED = re.compile(r"^worker '\w+' crashed while running")
"""What pytest-xdist says of a test whose process died."""
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
"""With this project's folder first, so that no other package answers to the names of ours, in workers of xdist too."""
EPILOG = (
    "Other options go on to pytest, after PORT, and so do test ids such as test_agreement.py::test_forward. "
    "exit codes: 0 the port passes, 1 a test fails, 2 bad input, a port that can't be loaded or no test that was run, "
    "3 pytest crashed, 130 interrupted"
)


@dataclass(frozen=True, kw_only=True)
class ConformOptions(PortOptions):
    """The options of `conform`."""

    device: str | None
    examples: int
    xfails: str | None
    allow_missing: bool
    pytest: tuple[str, ...]


class _PassOn(argparse.Action):
    """Keeps an option for pytest."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Append the option and its value."""
        given = [option_string, *([values] if isinstance(values, str) else values or [])]
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), *given])


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        ConformOptions,
        derive=lambda arguments: {"pytest": tuple(arguments.pytest)},
        help="run the tests that every port must pass on one port",
        description="Run the tests that every port must pass on one port, in pytest with a configuration of their own.",
        epilog=EPILOG,
    )
    parser.set_defaults(pytest=[])
    add = parser.add_argument
    port = "a .py file, a module or the name of an installed port"
    add("port", metavar="PORT", type=argument_types.name, nargs=1, help=port)
    device = "device of the port, such as cuda (default: cpu if the port has it)"
    add("--device", metavar="NAME", type=argument_types.name, help=device)
    add("--examples", metavar="N", type=int, default=EXAMPLES, help="nets that a property is tried on")
    xfails = "tests that must fail: a test id and the reason a line"
    add("--xfails", metavar="FILE", type=argument_types.name, help=xfails)
    add("--allow-missing", action="store_true", help="pass if the port's framework is not installed")
    for flags, metavar, help in (
        (("-k",), "EXPRESSION", "pytest: run the tests whose names match"),
        (("-n",), "N", "pytest-xdist: run on N processes (default: one a core without --xfails)"),
        (("--junitxml",), "PATH", "pytest: write the results as JUnit XML"),
        (("--durations",), "N", "pytest: print the N slowest tests"),
    ):
        add(*flags, metavar=metavar, action=_PassOn, dest="pytest", help=help)
    add("-x", nargs=0, action=_PassOn, dest="pytest", help="pytest: stop at the first failure")


def run(options: ConformOptions) -> int:
    """Run the tests, say how many passed, and return the exit code."""
    check(options)
    use_compilation_cache()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        sys.stdout.flush()
        returncode = run_pytest(make_command(options, results), make_environment(options, folder))
        outcome = json.loads(results.read_text()) if results.exists() else None
    told = outcome or {}
    if reason := told.get("not_run"):
        if not options.allow_missing:
            raise ValueError(f"{options.port[0]} can't be run: {reason} (--allow-missing lets that pass.)")
        print(f"{options.port[0]} was not run: {reason}")
        return AGREES
    code, sentence = judge(returncode, outcome)
    for failure in told.get("failures", []):
        print(f"FAILED {failure['test']}: {failure['message']}")
    report_to_github(options, told, sentence)
    print(f"{options.port[0]}: {sentence}")
    return code


def run_pytest(command: list[str], environment: dict[str, str]) -> int:
    """Run the command and return its exit code; BrokenPipeError where stdout is a pipe that its reader has closed.

    In a pipe the output is passed on: pytest itself would print a traceback for each line that nobody reads. Off a
    terminal, whose signals reach them all, pytest and its workers are a process group, so that they end together.
    """
    output = subprocess.PIPE if stat.S_ISFIFO(os.fstat(1).st_mode) else None
    group = 0 if os.name == "posix" and not os.isatty(1) else None
    with subprocess.Popen(command, env=environment, stdout=output, bufsize=0, process_group=group) as process:
        try:
            while process.stdout and (text := process.stdout.read(2**16)):
                os.write(1, text)
            process.wait()
        except BaseException:  # all end at once: pytest would report that its workers have ended
            if group is None:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode


def check(options: ConformOptions) -> None:
    """Raise ValueError where something is missing or out of range."""
    from ports.registry import check_exists

    missing = [name for name in ("pytest", "hypothesis") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"`conform` needs {' and '.join(missing)}: pip install 'fdnet[conform]'.")
    if "-n" in options.pytest and importlib.util.find_spec("xdist") is None:
        raise ValueError("`-n` needs pytest-xdist: pip install pytest-xdist.")
    if "-n" in options.pytest and not _is_utf8(os.fsencode(options.port[0])):
        raise ValueError(f"`-n` must be left out with a port whose name is not UTF-8, got {options.port[0]!r}.")
    for word in options.pytest:
        file = re.match(r"[^:]+\.py(?=$|::)", word)
        if file and not (TESTS / file[0]).is_file():
            files = ", ".join(path.name for path in sorted(TESTS.glob("test_*.py")))
            raise ValueError(f"A test file must be one of {files}, got {file[0]}.")
    if options.examples < 1:
        raise ValueError(f"`--examples` must be at least 1, got {options.examples}.")
    if options.xfails is not None and not os.path.isfile(options.xfails):
        raise ValueError(f"`--xfails` must be a file, got {options.xfails!r}.")
    if options.xfails is not None and not _is_utf8(Path(options.xfails).read_bytes()):
        raise ValueError(f"`--xfails` must be text in UTF-8, got {options.xfails!r}.")
    if "--junitxml" in options.pytest:
        check_files_differ(options, [("junitxml", options.pytest[options.pytest.index("--junitxml") + 1])])
    check_exists(options.port[0])


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _uses_workers(options: ConformOptions) -> bool:
    """Whether pytest-xdist is used: its workers know no `--xfails`, and take only names in UTF-8."""
    possible = not options.xfails and _is_utf8(os.fsencode(options.port[0]))
    return importlib.util.find_spec("xdist") is not None and ("-n" in options.pytest or possible)


def make_command(options: ConformOptions, results: Path) -> list[str]:
    """Return the command that runs pytest on this folder's tests and with its configuration."""
    given = [str(TESTS / word) if re.match(r"test_\w+\.py\b", word) else word for word in options.pytest]
    chosen = [] if given != list(options.pytest) else [str(TESTS)]
    command = [sys.executable, "-P", "-c", START, str(HOME), "-c", str(TESTS / "conform.ini"), f"--rootdir={TESTS}"]
    command += [
        "-q",
        "-rN",
        "--no-header",
        "--disable-warnings",
        "-p",
        "no:cacheprovider",
        "-p",
        "_hypothesis_pytestplugin",
    ]
    if _uses_workers(options):
        command += ["-p", "xdist", "--dist", "worksteal", *([] if "-n" in options.pytest else ["-n", "auto"])]
    command += [f"--port={options.port[0]}", f"--results={results}"]
    command += [f"--device={options.device}"] if options.device else []
    command += [f"--xfails={options.xfails}"] if options.xfails else []
    return [*command, *given, *chosen]


def make_environment(options: ConformOptions, folder: str) -> dict[str, str]:
    """Return the environment of pytest: the caller's settings of pytest and hypothesis have no say.

    Nor has PYTHONOPTIMIZE, which would leave the assertions out.
    """
    own = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "FDNET_REQUIRE", "HYPOTHESIS_PROFILE", "PYTHONOPTIMIZE")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    return environment | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "FDNET_EXAMPLES": str(options.examples),
        "HYPOTHESIS_STORAGE_DIRECTORY": folder,
    }


def judge(code: int, outcome: dict[str, Any] | None) -> tuple[int, str]:
    """Return the exit code, and the sentence with the counts and the worst gap / bound of each strategy.

    `outcome` is None where no test has begun, and empty where the tests have not ended. A port may end the process with
    any `code`.
    """
    if code == 2 and not (outcome or {}).get("failures"):  # xdist ends -x as an interruption
        return INTERRUPTED, "the tests were interrupted."
    if code == 4:
        return BAD_INPUT, "no test was run, for the reason above."
    if code == 0 and outcome is None:  # pytest's own --version and the like
        return BAD_INPUT, "no test was run."
    if code == 0 and not outcome:
        return CRASHED, "the process ended, with exit code 0, before the tests had."
    if code not in (0, 1, 2, 5) or not outcome:
        return CRASHED, f"pytest crashed, with exit code {code}."
    if dead := [failure["test"] for failure in outcome["failures"] if WORKER_DIED.search(failure["message"])]:
        return CRASHED, f"the process crashed in {dead[0]}."
    counts = [f"{outcome[kind]} {kind}" for kind in ("passed", "failed", "skipped", "xfailed") if outcome[kind]]
    if not outcome["passed"] + outcome["failed"] + outcome["xfailed"]:
        return BAD_INPUT, f"no test was run ({', '.join(counts) or 'none was selected'})."
    ratios = ", ".join(f"{strategy} {ratio:.2g}" for strategy, ratio in outcome["ratios"].items())
    worst = f"; the worst gap / bound: {ratios}" if ratios else ""
    return DISAGREES if code or outcome["failed"] else AGREES, f"{', '.join(counts)}{worst}."


def report_to_github(options: ConformOptions, outcome: dict[str, Any], sentence: str) -> None:
    """In GitHub Actions append the sentence to the step summary, and annotate the port's file with each failure."""
    append_to_step_summary(f"\n{options.port[0]}: {sentence}\n")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for failure in outcome.get("failures", []):
            message = f"{failure['test']}: {failure['message']}"
            annotate(outcome["file"], failure["line"], "fdnet conform", message)
