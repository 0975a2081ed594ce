"""A plugin of pytest: `pytest -p fault_plugin --fault torch "loop: no half"` replaces a port by a wrong one.

A fault that wraps the port, of faults_by_kind.py, is loaded by the name `wrong_port` instead; `--port wrong_port`.
"""

import importlib
import sys
from typing import Any

import pytest

import faults_by_kind
import ports
import wrong_ports


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault", nargs=2, metavar=("BACKEND", "NAME"), required=True, help="the fault of the port")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    backend, name = config.getoption("--fault")
    if name in faults_by_kind.FAULTS:
        wrong: Any = faults_by_kind.FAULTS[name](ports.load(backend))
        sys.modules["wrong_port"] = wrong
        return
    faults = importlib.import_module(f"faults_in_{backend}").FAULTS
    port = wrong_ports.edited(backend, faults[name] if name else ())
    sys.modules[f"ports.{backend}_port"] = port
    setattr(ports, f"{backend}_port", port)
