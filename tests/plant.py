"""A plugin of pytest: `pytest -p plant --fault torch "loop: no half"` plants a wrong port for the right one."""

import importlib
import sys

import pytest

import ports
import wrong_ports


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault", nargs=2, metavar=("BACKEND", "NAME"), required=True, help="the fault to plant")


def pytest_configure(config: pytest.Config) -> None:
    backend, name = config.getoption("--fault")
    faults = importlib.import_module(f"faults_in_{backend}").FAULTS
    port = wrong_ports.edited(backend, faults[name] if name else ())
    sys.modules[f"ports.{backend}_port"] = port
    setattr(ports, f"{backend}_port", port)
