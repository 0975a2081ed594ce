"""Profiles, the ports that tests run on, and a cache, so that JAX does not compile twice."""

import os
import re
import tempfile
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

import ports
from comparison.agreement.comparison import Subject
from problems import load, loaded

# How long JAX compiles is not known: no deadline.
settings.register_profile("dev", max_examples=10, deadline=None)
settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("mutation", settings.get_profile("ci"), phases=(Phase.explicit, Phase.generate))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads spin where cores are shared
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a line for each program that comes from the cache
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"fdnet-jax-cache-{os.getuid()}"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--port",
        metavar="FILE|MODULE|NAME",
        action="append",
        default=[],
        help="run what every port must pass, on this port only: a .py file, a module or the name of an installed port; "
        "may be given more than once",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("port"):  # warnings of a framework that is not ours to choose are not the port's faults
        for line in ("default", "error::RuntimeWarning"):
            config.addinivalue_line("filterwarnings", line)
        for name in config.getoption("port"):
            stem = re.escape(Path(name).stem) if name.endswith(".py") else re.escape(name)
            config.addinivalue_line("filterwarnings", f"error:::(fdnet_port_)?{stem}$")
    config.addinivalue_line("markers", "subjects(*dtypes): what every port must pass; the test takes `subject`")
    for name in config.getoption("port"):
        with suppress(ports.NotRunError):  # each test is skipped with the reason
            try:
                load(name)
            except ports.PortError as error:
                raise pytest.UsageError(f"--port: {error}") from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if mark := metafunc.definition.get_closest_marker("subjects"):
        pairs = list(product(metafunc.config.getoption("port") or ports.BUILT_IN, mark.args))
        ids = [f"{shown(name)}-{dtype}" for name, dtype in pairs]
        metafunc.parametrize("subject", pairs, indirect=True, ids=ids)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("port"):
        marked = [item for item in items if item.get_closest_marker("subjects")]
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker("subjects")])
        items[:] = marked


def shown(name: str) -> str:
    return Path(name).stem if name.endswith(".py") else name


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Subject:
    """Return the port and dtype that a test marked with `subjects` runs on, or skip with the reason why it can't."""
    name, dtype = request.param
    port = loaded(name)
    return Subject(shown(name), port, dtype, "cpu" if "cpu" in port.devices() else port.devices()[0], name)
