"""A short run of compare.py train, and compare.py as a function and as a program."""

import sys
from pathlib import Path

import compare

COMPARE = [sys.executable, str(Path(compare.__file__))]
SMALL = ("train", "--data", "random", "--batch", "50", "--hidden", "5", "--learning-rate", "1", "--iterations", "50")


def main(*arguments: object) -> int:
    try:
        return compare.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(str(stop.code))
