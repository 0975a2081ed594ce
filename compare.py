#!/usr/bin/env python3
"""The command line: compare every backend with the NumPy reference, and advise which of them to take."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NoReturn

from comparison import PROGRAM
from comparison.commands import (
    BAD_INPUT,
    CRASHED,
    EXIT_CODES,
    INTERRUPTED,
    PIPE_CLOSED,
    advise,
    agree,
    benchmark,
    conform,
    output,
    predict,
    processes,
    report,
    speed,
    train,
)
from comparison.commands.interruption import signals_as_ctrl_c

COMMANDS = (advise, agree, speed, train, predict, report, conform)
NAMES = tuple(command.__name__.rpartition(".")[2] for command in COMMANDS)
DESCRIPTION = "Compare every backend with the NumPy reference, and advise which of them to take."
RULES = {"source": "data", "samples": "batch", "outputs": "classes", "hidden_size": "hidden"}
"""Names of arguments in errors, and of the options that they come from."""
FORMER = {"h": ("--step",), "memory": ("--chunk-memory",)}
"""Other names of options."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with the sentence and the code for bad input."""
        if match := re.match(r"argument COMMAND: invalid choice: '(.*?)'", message):
            message = _no_such_command(match[1])
        processes.print_error(f"{self.prog}: {message.rstrip('.')}.")
        self.exit(BAD_INPUT)


def _no_such_command(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, 1)
    meant = f"; did you mean {near[0]}?" if near else "."
    return f"there is no command {name!r}{meant} The commands are {', '.join(NAMES)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the environment and Python's warnings are left as they are."""
    with signals_as_ctrl_c(), _environment_kept(), warnings.catch_warnings():
        return _main(argv)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo what a command sets for the frameworks that it imports and the processes that it starts."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _main(argv: Sequence[str] | None) -> int:
    closed, as_library = sys.stdout is None, argv is not None
    output.open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may have what the terminal lacks
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv.insert(0, "advise")
    arguments = argparse.Namespace()
    try:
        arguments = _parse(argv)
        options = processes.join(arguments.command, arguments.make_options(arguments))
        json = getattr(options, "json", None)
        output.check_json(json, closed=closed)
        with output.stdout_for_json(json), _default_arithmetic():
            code = int(arguments.run(options))
        sys.stdout.flush()
        return code
    except benchmark.RestartNeeded as restart:
        return _restart(restart.environment, argv, as_library=as_library)
    except BrokenPipeError:
        _discard_stdout()
        return processes.leave(PIPE_CLOSED)
    except ValueError as error:
        return _fail(BAD_INPUT, _with_option(str(error), arguments, argv))
    except ConnectionAbortedError as error:  # between ranks
        return _fail(CRASHED, str(error))
    except OSError as error:
        file = f": {error.filename!r}" if error.filename is not None else ""  # a broken pipe has no name
        return _fail(BAD_INPUT, f"{error.strerror or error}{file}.")
    except MemoryError as error:
        return _fail(BAD_INPUT, f"this needs more memory than there is: {error}.")
    except KeyboardInterrupt as interrupt:
        return _fail(INTERRUPTED, str(interrupt) or "interrupted.")
    except BaseException as error:  # a fault of the code: whoever fixes it must know where; no disagreement ends so
        if isinstance(error, SystemExit) and "run" not in arguments:  # the parser's own, as after --help
            raise
        processes.ignore_stop_requests()
        traceback.print_exc()
        return processes.leave(CRASHED)


def _default_arithmetic() -> AbstractContextManager[object]:
    """Keep the caller's settings of NumPy and of the processor from a command: the reference underflows, rightly."""
    from reference.surroundings import default_arithmetic  # only now: --help answers without NumPy

    return default_arithmetic()


def _restart(environment: dict[str, str], argv: list[str], *, as_library: bool) -> int:
    """Run the command in a new process: in this one's place, or beside a caller who wants to go on."""
    sys.stdout.flush()
    if not as_library:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    command = [sys.executable, __file__, *argv]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    sys.stdout.write(done.stdout)
    return done.returncode


def _discard_stdout() -> None:
    """Discard the rest of the output: Python flushes stdout as it exits."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _make_parser()
    try:
        arguments, unknown = parser.parse_known_args(argv)
    finally:
        sys.stdout.flush()  # the help may go to a pipe that is closed
    if unknown and "pytest" not in arguments:
        for name in NAMES:
            if name in unknown:
                parser.error(f"the command must come first: {PROGRAM} {name} {' '.join(_without(argv, name))}")
        parser.error(f"unrecognized arguments: {' '.join(unknown)}; see {PROGRAM} {arguments.command} --help")
    if unknown:
        arguments.pytest += unknown
    return arguments


def _without(argv: list[str], command: str) -> list[str]:
    """Return the words after the command that was put first, without the one that stood in the middle."""
    words = argv[1:]
    words.remove(command)
    return words


def _with_option(sentence: str, arguments: argparse.Namespace, argv: list[str]) -> str:
    """Name the option that the user has typed in place of the argument that it became: `batch` is --batch."""
    if match := re.match(r"`-*([\w-]+)`", sentence):
        name = match[1].replace("-", "_")
        option = RULES.get(name, name)
        if option in vars(arguments):
            typed = [word.partition("=")[0] for word in argv if word.partition("=")[0] in FORMER.get(option, ())]
            return f"`{(typed or [f'--{option}'])[-1].replace('_', '-')}`{sentence[match.end() :]}"
    return sentence


def _fail(code: int, sentence: str) -> int:
    processes.print_error(f"{PROGRAM}: {sentence}")
    return processes.leave(code)


def _make_parser() -> Parser:
    parser = Parser(prog=PROGRAM, description=DESCRIPTION, epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"fdnet {output.version()}")
    title = "commands (advise is the default)"
    commands = parser.add_subparsers(title=title, dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
