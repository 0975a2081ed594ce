#!/usr/bin/env python3
"""The command line: hold every backend to the NumPy reference, and say whether they agree.

Nothing but the standard library is imported before a command runs, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ports.agreement import Outcome, Problem, Subject

AGREES, DISAGREES, BAD_INPUT, CRASHED, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = (
    "exit codes: 0 all agree, 1 something disagrees, 2 bad input or nothing to compare, 3 a backend crashed, "
    "130 interrupted"
)
STRATEGIES = ("loop", "batched", "structured", "collocated")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with the sentence and the code for bad input."""
        self.exit(BAD_INPUT, f"{self.prog}: {message.rstrip('.')}.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may have what the terminal lacks
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv.insert(0, "agree")
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except ValueError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"compare.py: {error.strerror or error}: {error.filename!r}.", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("compare.py: interrupted.", file=sys.stderr)
        return INTERRUPTED


def _parser() -> Parser:
    parser = Parser(prog="compare.py", description=__doc__.splitlines()[0], epilog=EXIT_CODES)
    commands = parser.add_subparsers(title="commands (agree unless told)", required=True, metavar="COMMAND")
    agree = commands.add_parser(
        "agree",
        help="compare predictions, losses, accuracy and gradients with the float64 reference",
        description="Compare every backend x strategy x dtype with the float64 reference, within derived bounds.",
        epilog=EXIT_CODES,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    agree.set_defaults(run=run_agree)
    add = agree.add_argument
    add("--backend", metavar="NAMES", type=_names, default=(), help="backends, by comma (default: all)")
    add(
        "--strategy",
        metavar="NAMES",
        type=_strategies,
        default="all",
        help=f"{', '.join(STRATEGIES)}, by comma, or all",
    )
    add("--dtype", metavar="NAMES", type=_dtypes, default="float64,float32", help="dtypes, by comma")
    add(
        "--device",
        default="auto",
        help="a device that the backends know, such as cpu or cuda; auto takes their default",
    )
    add(
        "--data",
        metavar="NAME|PATH",
        default="digits",
        help="digits, mnist, fashion-mnist, random, or a folder or npz file",
    )
    add("--batch", metavar="B", type=int, default=100, help="samples in the mini-batch")
    add("--hidden", metavar="H", type=int, default=50, help="hidden units")
    add("--step", metavar="h", type=float, default=1e-4, help="step of the differences; 0.01 is checked besides")
    add("--seed", type=int, default=0, help="seed of the net, the mini-batch and the sampled entries")
    add("--port", metavar="FILE|MODULE", action="append", default=[], help="a port from outside, besides the backends")
    add("--chunk-memory", metavar="SIZE", type=_bytes, default="256MiB", help="what a gradient may take for its work")
    add("--json", metavar="PATH", nargs="?", const="-", help="write JSON to PATH, or to stdout instead of the table")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError(f"must name at least one, got {text!r}")
    return names


def _strategies(text: str) -> tuple[str, ...]:
    return STRATEGIES if text == "all" else _among(text, STRATEGIES)


def _dtypes(text: str) -> tuple[str, ...]:
    return _among(text, ("float64", "float32"))


def _among(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    for name in _names(text):
        if name not in known:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(known)}, got {name!r}")
    return _names(text)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)?", text)
    size = float(match[1]) * 1024 ** ("B", "KiB", "MiB", "GiB").index(match[2] or "B") if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"must be a size such as 64MiB, got {text!r}")
    return int(size)


def run_agree(args: argparse.Namespace) -> int:
    """Compare, print, and return the exit code."""
    problem = _problem(args)
    subjects, not_run = _subjects(args)
    if not subjects:
        raise ValueError("Nothing to compare: " + " ".join(f"{row['backend']}: {row['reason']}" for row in not_run))
    outcome = _check_all(args, subjects, problem)._replace(not_run=not_run)
    if args.json:
        _write(args.json, json.dumps(_as_json(args, outcome), indent=2, allow_nan=False) + "\n")
    if args.json != "-" and not args.quiet:
        _print_agreement(args, outcome)
    _tell_github(outcome)
    return CRASHED if outcome.crashed else AGREES if outcome.agrees else DISAGREES


def _problem(args: argparse.Namespace) -> Problem:
    """Return the net and mini-batch, with every rule on them checked before a backend is loaded."""
    from ports.agreement import random_problem
    from reference.datasets import load
    from reference.two_layer_net import largest
    from reference.validation import check_net, check_step, check_step_moves

    check_step(args.step)
    data = load(args.data, seed=args.seed)
    problem = random_problem(data.x_train, data.t_train, hidden=args.hidden, samples=args.batch, seed=args.seed)
    if {"loop", "batched"} & set(args.strategy):
        check_step_moves(args.step, check_net(problem.params, problem.x, type(problem.x), largest), "float64")
    return problem


def _subjects(args: argparse.Namespace) -> tuple[list[Subject], list[dict[str, str]]]:
    """Return what can be compared, and what can't with the reason."""
    import ports
    from ports.agreement import Subject
    from reference.validation import DeviceError, check_device

    subjects, not_run = [], []
    for name in (*(args.backend or ports.names()), *args.port):
        try:
            port = ports.load(name)
            device = check_device(args.device, port.devices())
        except (ports.NotRunError, DeviceError) as reason:
            not_run.append({"backend": name, "reason": str(reason)})
        else:
            shown = Path(name).stem if name.endswith(".py") else name
            subjects += [Subject(shown, port, dtype, device) for dtype in args.dtype]
    return subjects, not_run


def _check_all(args: argparse.Namespace, subjects: list[Subject], problem: Problem) -> Outcome:
    from rich.console import Console
    from rich.progress import track

    from ports.agreement import Agreement, Outcome, check

    outcome = Outcome([], [], [], [])
    console = Console(stderr=True)
    shown = console.is_terminal and not args.quiet
    for subject in track(subjects, "comparing", console=console, transient=True) if shown else subjects:
        try:
            for row in check(subject, problem, args.strategy, h=args.step, memory=args.chunk_memory, seed=args.seed):
                if isinstance(row, Agreement):
                    outcome.rows.append(row)
                else:
                    outcome.not_compared.append(row)
        except Exception as error:  # a port may fail in any way: it is reported, and the exit code says so
            outcome.crashed.append({"backend": subject.name, "dtype": subject.dtype, "reason": _where(error)})
    return outcome


def _where(error: Exception) -> str:
    """Return a sentence with what was raised and where."""
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split()) or "no message."
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {message}"


def _as_json(args: argparse.Namespace, outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "schema_version": 1,
        "command": "agree",
        "environment": _environment(),
        "settings": {key: value for key, value in vars(args).items() if key not in ("run", "json", "quiet")},
        "agreement": [asdict(row) for row in outcome.rows],
        "not_compared": [row._asdict() for row in outcome.not_compared],
        "not_run": outcome.not_run,
        "crashed": outcome.crashed,
        "agrees": outcome.agrees,
    }


def _environment() -> dict[str, Any]:
    """Return versions and machine, without importing anything."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {}
    for package in ("numpy", "torch", "jax", "jaxlib"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"python": platform.python_version(), **versions, "platform": platform.platform(), "cpus": os.cpu_count()}


def _print_agreement(args: argparse.Namespace, outcome: Outcome) -> None:
    from rich.console import Console

    from ports.report import agreement_notes, agreement_summary, agreement_table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # nobody cuts a pipe's lines
    console.print(_heading(args))
    console.print(agreement_table(outcome))
    for text in ("", *agreement_notes(outcome), agreement_summary(outcome)):
        console.print(text, markup=False)


def _heading(args: argparse.Namespace) -> str:
    return f"{args.data}, batch {args.batch}, {args.hidden} hidden units, h = {args.step:g} and 0.01, seed {args.seed}"


def _tell_github(outcome: Outcome) -> None:
    """Append the table to the step summary, and annotate each disagreement, where GitHub Actions runs us."""
    from ports.report import agreement_markdown, disagreement_sentence

    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(path, "a", encoding="utf-8") as summary:
            summary.write(agreement_markdown(outcome))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for row in outcome.rows:
            if not row.agrees:
                print(f"::error::{disagreement_sentence(row)}", file=sys.stderr)


def _write(path: str, text: str) -> None:
    """Write to stdout for "-", else to a file that is either there as a whole or not at all."""
    if path == "-":
        sys.stdout.write(text)
        return
    target = Path(path)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


if __name__ == "__main__":
    sys.exit(main())
