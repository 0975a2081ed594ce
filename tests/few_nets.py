"""compare.py with one other net and one other training in place of all: python few_nets.py COMMAND …

What a command prints, writes and returns does not depend on how many nets a port is compared on.
"""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def leave_few_nets(set_attribute: Callable[[object, str, object], None]) -> None:
    """Replace the trials and trainings of `agree` by one of each, in this process, where it then compares."""
    from comparison.agreement import training, trials
    from comparison.commands import comparisons

    set_attribute(trials, "TRIALS", trials.TRIALS[:1])
    set_attribute(training, "TRAININGS", training.TRAININGS[2:3])
    set_attribute(comparisons, "MOST_PROCESSES", 1)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # in place of tests/, where another package has the name `comparison`
    sys.argv[0] = str(ROOT / "compare.py")
    leave_few_nets(setattr)
    runpy.run_path(sys.argv[0], run_name="__main__")
