"""The options that commands share, and what is made of them: subjects and the problem put before them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.commands import EXIT_CODES
from comparison.commands import processes as ranks

if TYPE_CHECKING:
    from comparison.agreement.comparison import Problem, Subject
    from ports import Port
    from reference.datasets import Dataset

STRATEGIES = ("loop", "batched", "structured", "collocated")
DTYPES = ("float64", "float32")


def new_command(
    commands: Any, run: Callable[[argparse.Namespace], int], *, help: str, description: str, epilog: str = EXIT_CODES
) -> argparse.ArgumentParser:
    """Add a command, of the name of its module, to the parser of compare.py."""
    parser: argparse.ArgumentParser = commands.add_parser(
        run.__module__.rpartition(".")[2],
        help=help,
        description=description,
        epilog=epilog,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Add all that a comparison of strategies takes."""
    add_subjects(parser)
    add_strategy(parser)
    add_problem(parser)
    add_output(parser)


def add_subjects(
    parser: argparse.ArgumentParser,
    *,
    backend: str = "all",
    dtype: str | None = ",".join(DTYPES),
    scaling: bool = False,
) -> None:
    """Add what names the backends, dtypes and devices to run; with `scaling`, on several numbers of devices."""
    add = parser.add_argument
    add("--backend", metavar="NAMES", type=backends, default=backend, help="backends, by comma, or all")
    add("--dtype", metavar="NAMES", type=dtypes, default=dtype, help="dtypes, by comma")
    add(
        "--device",
        metavar="NAMES",
        type=names,
        default="auto",
        help="devices that the backends know, such as cpu or cuda, by comma; auto takes their default",
    )
    over = "lay the work over N devices, or all; by itself under torchrun"
    if scaling:
        add("--devices", metavar="N[,N,...]", type=counts, help=over + "; with several N, print how the time scales")
    else:
        add("--devices", metavar="N", type=devices, help=over)
    add("--port", metavar="FILE|MODULE", action="append", default=[], help="a port from outside, besides the backends")


def add_strategy(parser: argparse.ArgumentParser, default: str = "all") -> None:
    """Add the choice of strategies."""
    known = f"{', '.join(STRATEGIES)}, by comma, or all"
    parser.add_argument("--strategy", metavar="NAMES", type=strategies, default=default, help=known)


def add_problem(parser: argparse.ArgumentParser) -> None:
    """Add what makes the net and its mini-batch, and how it is differentiated."""
    add = parser.add_argument
    add(
        "--data",
        metavar="NAME|PATH",
        default="digits",
        help="digits, mnist, fashion-mnist, random, or a folder or npz file",
    )
    add("--batch", metavar="B", type=int, default=100, help="samples in the mini-batch")
    add("--hidden", metavar="H", type=int, default=50, help="hidden units")
    add("--step", metavar="h", type=float, default=1e-4, help="step of the differences")
    add("--seed", type=int, default=0, help="seed of all that is drawn at random")
    add("--chunk-memory", metavar="SIZE", type=size, default="256MiB", help="what a gradient may take for its work")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add what becomes of the results."""
    add = parser.add_argument
    add("--json", metavar="PATH", nargs="?", const="-", help="write JSON to PATH, or to stdout instead of the table")
    add("--quiet", action="store_true", help="print nothing but errors")


def names(text: str) -> tuple[str, ...]:
    """Parse names separated by commas."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"must name at least one, got {text!r}")
    return found


def backends(text: str) -> tuple[str, ...]:
    """Parse names of backends; none stand for "all"."""
    return () if text == "all" else names(text)


def strategies(text: str) -> tuple[str, ...]:
    """Parse names of strategies, or "all"."""
    return STRATEGIES if text == "all" else among(text, STRATEGIES)


def dtypes(text: str) -> tuple[str, ...]:
    """Parse names of dtypes."""
    return among(text, DTYPES)


def among(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Parse names that must be among those known."""
    for name in names(text):
        if name not in known:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(known)}, got {name!r}")
    return names(text)


def size(text: str) -> int:
    """Parse a number of bytes such as 64MiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)?", text)
    found = float(match[1]) * 1024 ** ("B", "KiB", "MiB", "GiB").index(match[2] or "B") if match else 0
    if found < 1:
        raise argparse.ArgumentTypeError(f"must be a size such as 64MiB, got {text!r}")
    return int(found)


def devices(text: str) -> int | str:
    """Parse a number of devices, or "all"."""
    if text != "all" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a number of devices, or all, got {text!r}")
    return text if text == "all" else int(text)


def counts(text: str) -> int | str | tuple[int, ...]:
    """Parse a number of devices, or several from small to large."""
    found = increasing(text) if "," in text else (devices(text),)
    return found if len(found) > 1 else found[0]


def increasing(text: str) -> tuple[int, ...]:
    """Parse whole numbers from small to large."""
    try:
        found = tuple(int(name) for name in names(text))
    except ValueError:
        found = ()
    if not found or found != tuple(sorted(found)) or found[0] < 1:
        raise argparse.ArgumentTypeError(f"must be whole numbers from small to large, got {text!r}")
    return found


def settings(args: argparse.Namespace) -> dict[str, object]:
    """Return the options as JSON is to record them."""
    return {key: value for key, value in vars(args).items() if key not in ("run", "json", "quiet")}


def problem(args: argparse.Namespace, data: Dataset) -> Problem:
    """Return the net and mini-batch, with every rule on them checked before a backend is loaded."""
    from comparison.agreement.comparison import random_problem
    from reference.two_layer_net import largest
    from reference.validation import check_net, check_step, check_step_moves

    check_step(args.step)
    sizes = {"hidden": args.hidden, "outputs": data.classes, "samples": args.batch}
    made = random_problem(data.x_train, data.t_train, **sizes, seed=args.seed)
    if {"loop", "batched"} & set(args.strategy):
        check_step_moves(args.step, check_net(made.params, made.x, type(made.x), largest), "float64")
    return made


def subjects(args: argparse.Namespace) -> tuple[list[Subject], list[dict[str, str]]]:
    """Return what can be run, and what can't with the reason; ValueError if nothing can."""
    import ports
    from comparison.agreement.comparison import Subject
    from reference.validation import DeviceError, check_device

    found, not_run = [], []
    for name in (*(args.backend or ports.names()), *args.port):
        for wanted in args.device:
            try:
                port = _laid_out(args, ports.load(name))
                device = check_device(wanted, port.devices())
            except (ports.NotRunError, DeviceError) as reason:
                not_run.append({"backend": name, "reason": str(reason)})
            else:
                shown = Path(name).stem if name.endswith(".py") else name
                found += [Subject(shown, port, dtype, device, name) for dtype in args.dtype]
    if not found:
        raise ValueError("Nothing to compare: " + " ".join(f"{row['backend']}: {row['reason']}" for row in not_run))
    return found, not_run


def _laid_out(args: argparse.Namespace, port: Port) -> Port:
    """Return the port over several devices where this is asked for, by --devices or by torchrun."""
    if args.devices in (None, 1) and ranks.count() == 1:
        return port
    from ports import NotRunError

    spread = getattr(port, "spread", None)
    if spread is None:
        raise NotRunError("it runs on one device.")
    return spread(args.devices or "all")
