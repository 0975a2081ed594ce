#!/usr/bin/env python3
"""The command line: hold every backend to the NumPy reference, and say which of them to take."""

from __future__ import annotations

import argparse
import io
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from comparison.commands import (
    BAD_INPUT,
    CRASHED,
    EXIT_CODES,
    INTERRUPTED,
    advise,
    agree,
    predict,
    report,
    speed,
    train,
)
from comparison.commands import processes as ranks

COMMANDS = (advise, agree, speed, train, predict, report)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with the sentence and the code for bad input."""
        ranks.tell(f"{self.prog}: {message.rstrip('.')}.")
        self.exit(BAD_INPUT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may have what the terminal lacks
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv.insert(0, "advise")
    args = _parser().parse_args(argv)
    try:
        ranks.meet(args)
        return int(args.run(args))
    except ValueError as error:
        ranks.tell(f"compare.py: {error}")
        return ranks.leave(BAD_INPUT)
    except ConnectionAbortedError as error:  # between ranks
        ranks.tell(f"compare.py: {error}")
        return ranks.leave(CRASHED)
    except OSError as error:
        file = f": {error.filename!r}" if error.filename is not None else ""  # a broken pipe has no name
        ranks.tell(f"compare.py: {error.strerror or error}{file}.")
        return ranks.leave(BAD_INPUT)
    except MemoryError as error:
        ranks.tell(f"compare.py: this needs more memory than there is: {error}.")
        return ranks.leave(BAD_INPUT)
    except KeyboardInterrupt as interrupt:
        ranks.tell(f"compare.py: {str(interrupt) or 'interrupted.'}")
        return ranks.leave(INTERRUPTED)
    except Exception:  # a fault of the code: whoever is to mend it must know where, and no disagreement ends like this
        ranks.end()
        traceback.print_exc()
        return ranks.leave(CRASHED)


def _parser() -> Parser:
    parser = Parser(prog="compare.py", description=__doc__.splitlines()[0], epilog=EXIT_CODES)
    commands = parser.add_subparsers(title="commands (advise unless told)", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
