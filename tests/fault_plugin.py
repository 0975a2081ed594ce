"""A plugin of pytest: `pytest -p fault_plugin --fault torch "loop: no half"` replaces a port by a wrong one."""

import importlib
import sys

import pytest

import ports
import wrong_ports


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault", nargs=2, metavar=("BACKEND", "NAME"), required=True, help="the fault of the port")


def pytest_configure(config: pytest.Config) -> None:
    backend, name = config.getoption("--fault")
    faults = importlib.import_module(f"faults_in_{backend}").FAULTS
    port = wrong_ports.edited(backend, faults[name] if name else ())
    sys.modules[f"ports.{backend}_port"] = port
    setattr(ports, f"{backend}_port", port)
