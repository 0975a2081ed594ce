"""The options of the commands: parsed into one frozen dataclass a command, which is made of the groups they share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from textwrap import fill
from typing import Any, TypeVar

from comparison import PROGRAM
from comparison.commands import EXIT_CODES, argument_types
from comparison.commands.file_options import check_files_differ
from reference.defaults import DTYPES, MEMORY, STRATEGIES, H

# --- the groups


@dataclass(frozen=True, kw_only=True)
class PortOptions:
    """The ports from outside, which every command may take."""

    port: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Selection(PortOptions):
    """The backends, dtypes and devices to run, on which every command depends."""

    backend: tuple[str, ...]  # empty: those that run by default; ("all",): all of them
    dtype: tuple[str, ...]
    device: tuple[str, ...]
    devices: int | str | tuple[int, ...] | None  # how many; a tuple for the scaling of a step
    allow_missing: bool  # of the backends and ports that are named
    no_cache: bool  # of what JAX has compiled
    quiet: bool


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The data set."""

    data: str
    inputs: int | None  # of random
    classes: int | None
    seed: int  # also of all else that is drawn


@dataclass(frozen=True, kw_only=True)
class ProblemOptions(DataOptions):
    """The net, its mini-batch, and how it is differentiated."""

    batch: int
    hidden: int
    h: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Selection):
    """Where the results go."""

    json: str | None

    @property
    def prints(self) -> bool:
        """Whether tables and sentences go to stdout."""
        return not self.quiet and self.json != "-"


# --- the options of commands


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions(OutputOptions, ProblemOptions):
    """The options of `agree`, and of every other command that compares strategies."""

    strategy: tuple[str, ...]
    threads: int | None


@dataclass(frozen=True, kw_only=True)
class TimingOptions(ComparisonOptions):
    """The options of `advise`: those of `agree`, and those of the timing."""

    what: str  # gradient, step or run
    iterations: int
    budget: float


@dataclass(frozen=True, kw_only=True)
class SpeedOptions(TimingOptions):
    """The options of `speed`."""

    peer: bool
    sweep: str | None
    sizes: tuple[int, ...] | None
    self_check: bool
    baseline: str | None
    fail_if_slower: float | None


@dataclass(frozen=True, kw_only=True)
class TrainOptions(OutputOptions, ProblemOptions):
    """The options of `train`."""

    strategy: str
    iterations: int
    learning_rate: float
    checkpoint: str | None
    every: int
    resume: bool
    overwrite: bool
    save: str | None
    plot: str | None
    history: str | None


# --- from the parser to the options

Options = TypeVar("Options", bound=PortOptions)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Leaves the lines of the examples as they are, and shows the defaults of options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = isinstance(action.default, str | float) or type(action.default) is int
        return super()._get_help_string(action) if has_default and action.default != argparse.SUPPRESS else action.help


def new_command(
    commands: Any,
    run: Callable[[Any], int],
    options: type[PortOptions],
    *,
    derive: Callable[[argparse.Namespace], dict[str, object]] | None = None,
    help: str,
    description: str,
    examples: Sequence[tuple[str, str]] = (),
    epilog: str = EXIT_CODES,
) -> argparse.ArgumentParser:
    """Add a command, named after the module of `run`, to the parser of compare.py.

    Parameters
    ----------
    commands : argparse._SubParsersAction
    run : callable
        From the options to the exit code.
    options : type
        The dataclass that the arguments are parsed into.
    derive : callable, optional
        Computes the fields that depend on other arguments.
    help, description : str
    examples : sequence of (str, str)
        Command lines and comments that the help ends with.
    epilog : str
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        run.__module__.rpartition(".")[2],
        help=help,
        description=fill(description, 79),
        epilog=_epilog(examples, epilog),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, make_options=partial(_make_options, options, derive))
    return parser


def _epilog(examples: Sequence[tuple[str, str]], text: str) -> str:
    lines = ["examples:"] if examples else []
    for command, comment in examples:
        lines += [f"  # {comment}"] if comment else []
        lines.append(f"  {PROGRAM} {command}".rstrip())
    return "\n".join([*lines, "", fill(text, 79)])


def _make_options(
    kind: type[Any],
    derive: Callable[[argparse.Namespace], dict[str, object]] | None,
    arguments: argparse.Namespace,
) -> Any:
    values = vars(arguments) | (derive(arguments) if derive else {})
    values["port"] = tuple(values["port"])
    options = kind(**{field.name: values[field.name] for field in fields(kind)})
    check_files_differ(options)
    return options


def settings(options: Selection) -> dict[str, object]:
    """Return the options as JSON records them."""
    return {name: value for name, value in asdict(options).items() if name not in ("json", "quiet")}


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Add the options of a comparison of strategies."""
    add_selection(parser)
    known = f"{', '.join(STRATEGIES)}, by comma, or all"
    parser.add_argument("--strategy", metavar="NAMES", type=argument_types.strategies, default="all", help=known)
    add_problem(parser)
    add_output(parser)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the option of how many cores are used."""
    help = "cores for each backend (default: all that the process may use)"
    parser.add_argument("--threads", metavar="N", type=int, help=help)


def add_selection(
    parser: argparse.ArgumentParser,
    *,
    backend: str | None = None,
    dtype: str | None = ",".join(DTYPES),
    several_counts: bool = False,
) -> None:
    """Add the choice of backends, dtypes and devices; with `several_counts`, of several numbers of devices."""
    add = parser.add_argument
    known = "backends, by comma, or all; without it all but torch-compiled" if backend is None else "backends, by comma"
    default = () if backend is None else backend
    add("--backend", metavar="NAMES", type=argument_types.names, default=default, help=known)
    add("--dtype", metavar="NAMES", type=argument_types.dtypes, default=dtype, help="dtypes, by comma")
    add(
        "--device",
        metavar="NAMES",
        type=argument_types.names,
        default="auto",
        help="devices that the backends know, such as cpu or cuda, by comma; auto takes their default",
    )
    help = "distribute the work over N devices, or all; under torchrun all is the default"
    if several_counts:
        help += "; with several N, print how the time scales"
        add("--devices", metavar="N[,N,...]", type=argument_types.device_counts, help=help)
    else:
        add("--devices", metavar="N", type=argument_types.device_count, help=help)
    missing = "go on without a named backend or port that can't be loaded"
    add("--allow-missing", action="store_true", help=missing)
    add("--no-cache", action="store_true", help="compile anew what JAX has compiled before")
    help = "a port from outside, besides the backends"
    add("--port", metavar="FILE|MODULE", type=argument_types.name, action="append", default=[], help=help)


def add_problem(parser: argparse.ArgumentParser) -> None:
    """Add the options of the net, its mini-batch, and the differences."""
    add_data(parser)
    add = parser.add_argument
    add("--batch", metavar="B", type=int, default=100, help="samples in the mini-batch")
    add("--hidden", metavar="H", type=int, default=50, help="hidden units")
    add("--h", "--step", metavar="h", type=float, default=H, help="step of the differences")
    add("--seed", type=int, default=0, help="seed of everything drawn at random")
    add(
        "--memory",
        "--chunk-memory",
        metavar="SIZE",
        type=argument_types.byte_size,
        default=f"{MEMORY // 2**20}MiB",
        help="memory that a gradient may use for its work",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the data set."""
    known = "digits, mnist, fashion-mnist, random, or the path of a folder or of an npz, CSV or IDX file"
    add = parser.add_argument
    add("--data", metavar="NAME|PATH", type=argument_types.name, default="digits", help=known)
    add("--inputs", metavar="N", type=int, help="inputs of --data random (64 by default)")
    add("--classes", metavar="N", type=int, help="classes of --data random (10 by default)")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options of the output."""
    add = parser.add_argument
    help = "write JSON to PATH, or to stdout instead of the table"
    add("--json", metavar="PATH", type=argument_types.name, nargs="?", const="-", help=help)
    add("--quiet", action="store_true", help="print only errors; the verdict is the exit code")
