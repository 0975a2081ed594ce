"""compare.py with one other net and one other training in place of all: python few_nets.py COMMAND …

What a command prints, writes and returns does not depend on how many nets a port is compared on.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def few_nets() -> list[tuple[Any, str, Any]]:
    """Return what to set to what."""
    from comparison.agreement import training, trials

    return [(trials, "TRIALS", trials.TRIALS[:1]), (training, "TRAININGS", training.TRAININGS[2:3])]


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # in place of tests/, where another package has the name `comparison`
    sys.argv[0] = str(ROOT / "compare.py")
    for module, name, value in few_nets():
        setattr(module, name, value)
    runpy.run_path(sys.argv[0], run_name="__main__")
