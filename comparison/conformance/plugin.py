"""The plugin of pytest that runs tests marked with `subjects` on ports: only sessions that collect this folder load it.

`--port` names the ports, by default the built-in ones; `--xfails` the tests that are known to fail.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Generator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

# How long JAX compiles is not known: no deadline.
settings.register_profile("dev", max_examples=10, deadline=None)
settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("mutation", settings.get_profile("ci"), phases=(Phase.explicit, Phase.generate))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))
if EXAMPLES := os.environ.get("FDNET_EXAMPLES"):  # of compare.py conform --examples
    phases = [phase for phase in Phase if phase is not Phase.explain]
    settings.register_profile(
        "conform", settings.get_profile("ci"), max_examples=int(EXAMPLES), phases=phases, print_blob=False
    )
    settings.load_profile("conform")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads spin where cores are shared
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a line for each program that comes from the cache
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"fdnet-jax-cache-{os.getuid()}"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import ports  # noqa: E402, with these settings
from comparison.agreement.comparison import FORWARD, Subject  # noqa: E402
from comparison.conformance.gradients import worst_ratios  # noqa: E402
from comparison.conformance.nets import MAX_EXAMPLES  # noqa: E402
from comparison.conformance.problems import choose_device, load, loaded  # noqa: E402
from reference.defaults import CLOSED_FORM, DTYPES, STRATEGIES  # noqa: E402
from reference.validation import DeviceError  # noqa: E402

results: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "xfailed": 0, "ratios": {}, "failures": []}
"""Of the session, for compare.py conform, which reads them from the file --results."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --port, --device, --xfails and --results."""
    add = parser.addoption
    add("--port", metavar="FILE|MODULE|NAME", action="append", default=[], help="run on this port; may be repeated")
    add("--device", metavar="NAME", help="run on this device (default: cpu if the port has it)")
    add("--xfails", metavar="FILE", help="tests that must fail: a test id and the reason a line")
    add("--results", metavar="FILE", help="write the counts and the largest gap / bound of each strategy as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Load the ports once, so that one that can't be loaded is one sentence."""
    config.addinivalue_line("markers", "subjects(*dtypes): what every port must pass; the test takes `subject`")
    config.addinivalue_line("markers", "slow: takes seconds; the project's own run leaves it out by default")
    for name in config.getoption("port", []):
        try:
            device = choose_device((port := load(name)).devices(), config.getoption("device"))
        except ports.NotRunError as reason:  # without --results each test is skipped with the reason
            if path := config.getoption("results"):
                Path(path).write_text(json.dumps({"not_run": str(reason)}))
                os._exit(0)  # nothing has begun, and pytest.exit would print its own sentence
        except (ports.PortError, DeviceError) as error:
            raise pytest.UsageError(str(error)) from error
        else:
            own = re.escape(getattr(port, "__name__", name))
            config.addinivalue_line("filterwarnings", rf"error:::{own}(\.|$)")  # not what a framework warns itself of
            if config.getoption("results") and not hasattr(config, "workerinput"):
                print(
                    f"What every port must pass, on {name}: {' and '.join(DTYPES)}, on {device}; "
                    f"{MAX_EXAMPLES} nets a property.",
                    flush=True,
                )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked on each port in each dtype; float32 is slow on JAX, which compiles each dtype anew."""
    if mark := metafunc.definition.get_closest_marker("subjects"):
        pairs, cases = product(metafunc.config.getoption("port", []) or ports.BUILT_IN, mark.args), []
        for name, dtype in pairs:
            slow = [pytest.mark.slow] if (name, dtype) == ("jax", "float32") else []
            cases.append(pytest.param((name, dtype), id=f"{shown(name)}-{dtype}", marks=slow))
        metafunc.parametrize("subject", cases, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that must fail."""
    if not (path := config.getoption("xfails", None)):
        return
    for test, reason in read_xfails(path).items():
        marked = [item for item in items if test in (item.nodeid, item.nodeid.partition("[")[0])]
        if not marked and all(Path(argument).is_dir() for argument in config.args):
            raise pytest.UsageError(f"`--xfails` must name tests, got {test!r}.")
        for item in marked:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def read_xfails(path: str) -> dict[str, str]:
    """Read the test ids of a file and their reasons; blank lines and those that begin with # don't count."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    reasons = {}
    for line in (line for line in lines if line and not line.startswith("#")):
        match = re.fullmatch(r"([^\s\[]+(?:\[.*?\])?)\s+(.+)", line)
        if match is None:
            raise pytest.UsageError(f"`--xfails` must have a test id and a reason in each line, got {line!r}.")
        reasons[match[1]] = match[2]
    return reasons


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add the largest gap / bound of each strategy to the report of a test."""
    worst_ratios.clear()
    try:
        return (yield)
    finally:
        item.user_properties += [(f"gap / bound, {strategy}", ratio) for strategy, ratio in worst_ratios.items()]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """Let JAX forget what a file compiled: a process runs out of memory maps after some thousand programs."""
    try:
        return (yield)
    finally:
        if "jax" in sys.modules and (nextitem is None or nextitem.path != item.path):
            sys.modules["jax"].clear_caches()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[Any]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the messages of several failures of one property to the report: hypothesis tells only their number."""
    report = yield
    if call.excinfo and isinstance(call.excinfo.value, BaseExceptionGroup):
        report.user_properties.append(("failures", "; ".join(_first_lines(call.excinfo.value))))
    return report


def _first_lines(error: BaseException) -> list[str]:
    """List the first line of each failure in a group; if a repeated call has failed otherwise, say that first."""
    if not isinstance(error, BaseExceptionGroup):
        return [_first_line(str(error))]
    flaky = ["the same call gives different results"] * (type(error).__name__ == "FlakyFailure")
    return flaky + [line for part in error.exceptions for line in _first_lines(part)]


def _first_line(text: str) -> str:
    """Return the first line that is not blank: NumPy's messages begin with one that is."""
    return text.strip().partition("\n")[0]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the result of a test."""
    if report.failed:
        results["failed"] += 1
        results["failures"].append({"test": report.nodeid, **_failure(report)})
    elif report.skipped:
        results["xfailed" if hasattr(report, "wasxfail") else "skipped"] += 1
    elif report.when == "call":
        results["passed"] += 1
    if report.when == "call":
        for name, ratio in report.user_properties:
            if name == "failures":
                continue
            strategy = name.rpartition(", ")[2]
            results["ratios"][strategy] = max(ratio, results["ratios"].get(strategy, 0.0))


def _failure(report: pytest.TestReport) -> dict[str, Any]:
    """Return the message of a failure, and the last line of a port's file on the way to it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = dict(report.user_properties).get("failures") or (crash.message if crash else str(report.longrepr))
    message = _first_line(str(message).removeprefix("AssertionError: "))
    entries = getattr(getattr(report.longrepr, "reprtraceback", None), "reprentries", [])
    places = [entry.reprfileloc for entry in entries if getattr(entry, "reprfileloc", None)]
    lines = {str(Path(place.path).resolve()): place.lineno for place in places}
    return {"message": message, "lines": lines}


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let the file of the results say that tests have begun: a port may end the process."""
    if (path := session.config.getoption("results", None)) and not hasattr(session.config, "workerinput"):
        Path(path).write_text("{}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the results."""
    path = session.config.getoption("results", None)
    if path and not hasattr(session.config, "workerinput"):
        order = (FORWARD, CLOSED_FORM, *STRATEGIES)
        ratios = {name: results["ratios"][name] for name in order if name in results["ratios"]}
        file = getattr(load(session.config.getoption("port")[0]), "__file__", None)
        for failure in results["failures"]:
            failure["line"] = failure.pop("lines").get(file and str(Path(file).resolve()), 1)
        Path(path).write_text(json.dumps(results | {"ratios": ratios, "file": file and os.path.relpath(file)}))


def shown(name: str) -> str:
    """Return the name of a port in test ids."""
    return Path(name).stem if name.endswith(".py") else name


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Subject:
    """Return the port and dtype that a test marked with `subjects` runs on, or skip with the reason why it can't."""
    name, dtype = request.param
    port = loaded(name)
    try:
        device = choose_device(port.devices(), request.config.getoption("device", None))
    except DeviceError as reason:
        pytest.skip(f"{name}: {reason}")
    return Subject(shown(name), port, dtype, device, name)
