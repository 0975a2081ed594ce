"""A small command line of compare.py speed, and what it answers in JSON."""

import json

import pytest

import compare
from command_lines import SMALL

SHORT = (*SMALL[1:], "--dtype", "float64", "--budget", "0.5")


def result(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, object]:
    assert compare.main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)
