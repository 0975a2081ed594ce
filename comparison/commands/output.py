"""The output that commands share: sentences and tables, JSON, and files that are whole or absent."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from comparison import PROGRAM
from comparison.commands import processes
from comparison.commands.options import settings

if TYPE_CHECKING:
    from rich.console import Console

    from comparison.commands.options import Selection


_reserved: list[tuple[int, int]] = []
"""While stdout is reserved, its descriptor and a copy of what that was."""


def open_standard_streams() -> None:
    """Open closed standard streams as the null device: otherwise the next file opened takes the descriptor.

    Child processes inherit them, as they do open ones.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


@contextmanager
def stdout_for_json(path: str | None) -> Iterator[None]:
    """Reserve stdout if JSON is to be written there: what else is printed, by Python or a library, goes to stderr."""
    if path != "-":
        yield
        return
    sys.stdout.flush()
    with suppress(OSError, ValueError):  # in a notebook it may have no descriptor
        descriptor = sys.stdout.fileno()
        _reserved.append((descriptor, os.dup(descriptor)))
        os.dup2(2, descriptor)
    stdout = sys.stdout
    texts: list[str] = []
    _texts.append(texts)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _texts.pop()
        restore_stdout()
        stdout.write("".join(texts))


_texts: list[list[str]] = []
"""What `write` has got for stdout while that is reserved."""


def restore_stdout() -> None:
    """Undo the redirection of stdout's descriptor."""
    while _reserved:
        descriptor, copy = _reserved.pop()
        os.dup2(copy, descriptor)
        os.close(copy)


def check_json(path: str | None, *, closed: bool) -> None:
    """Raise an error, before any work, for a place where JSON could not be written after it."""
    if path == "-" and closed:
        raise ValueError("`--json` must name a file where stdout is closed, got stdout.")
    if path not in (None, "-") and processes.is_first():
        from reference.files import check_writable

        check_writable(path)


def check_figures(format: str) -> None:
    """Raise ValueError, before any work, where no figure could be drawn after it, as with a bad MPLBACKEND."""
    try:
        from comparison.report.figures import check_drawing

        check_drawing(format)
    except Exception as error:  # whatever matplotlib raises as it is imported and draws
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"matplotlib must be able to draw {format}, got {reason.rstrip('.')}.") from error


def write(path: str, text: str) -> None:
    """Write to stdout for "-", else to a file, which is either whole or absent.

    Bytes of file names that are not UTF-8 are escaped, as on stdout.
    """
    if path == "-":
        _texts[-1].append(text)
        return
    from reference.files import write_atomically

    with processes.delay_stop_requests():
        write_atomically(path, [text.encode("utf-8", "backslashreplace")])


def try_each(writers: Iterable[Callable[[], object]]) -> list[Exception]:
    """Call each of them, and return what they raise: a file that can't be written does not keep others from it."""
    errors = []
    for writer in writers:
        try:
            with processes.delay_stop_requests():
                writer()
        except Exception as error:  # the caller raises it, once all has been tried
            errors.append(error)
    return errors


def raise_first(errors: Sequence[BaseException]) -> None:
    """Raise the first of the errors, if there are any, and print the others."""
    for error in errors[1:]:
        file = f": {error.filename!r}" if isinstance(error, OSError) and error.filename is not None else ""
        text = (isinstance(error, OSError) and error.strerror) or str(error)
        processes.print_error(f"{PROGRAM}: {text.rstrip('.')}{file}.")
    if errors:
        raise errors[0]


def append_to_step_summary(text: str) -> None:
    """In GitHub Actions append Markdown to the step summary; the verdict does not depend on whether that works."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(path, "a", encoding="utf-8", errors="backslashreplace") as summary:
                summary.write(text)
        except OSError as error:
            print(f"{PROGRAM}: GITHUB_STEP_SUMMARY can't be written: {error.strerror}: {path!r}.", file=sys.stderr)


def annotate(file: str, line: object, title: str, sentence: str) -> None:
    """Print a command of GitHub Actions that marks the line of a file; of none, if `file` is empty."""
    place = {"file": file, "line": str(line), "title": title} if file else {"title": title}
    properties = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in place.items())
    print(f"::error {properties}::{_escaped(sentence)}", file=sys.stderr)


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def write_json(path: str, command: str, options: Selection, results: dict[str, Any]) -> None:
    """Write the results of a command, with its options, versions and machine, as JSON."""
    made_by = {
        "schema_version": 2,
        "fdnet": version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": {**environment(), "processor": processor()},
        "command": command,
        "settings": settings(options),
    }
    write(path, json.dumps(made_by | results, indent=2, allow_nan=False) + "\n")


def version() -> str:
    """Return fdnet's version: that of the pyproject.toml beside this file, or of the package where it is installed."""
    import tomllib
    from importlib import metadata
    from pathlib import Path

    project = Path(__file__).parents[2] / "pyproject.toml"
    try:
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, KeyError):
        return metadata.version("fdnet")


def environment() -> dict[str, Any]:
    """Return the versions of packages and the machine, without importing anything."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    versions: dict[str, str | None] = {}
    for package in ("numpy", "torch", "jax", "jaxlib"):
        try:
            versions[package] = version_of(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"python": platform.python_version(), **versions, "platform": platform.platform(), "cpus": os.cpu_count()}


def processor() -> str:
    """Return the model of the processor, as Linux reports it, or else what Python knows."""
    import platform

    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def make_console() -> Console:
    """Return a console for tables on stdout; a pipe is 160 columns wide, so that no line is cut."""
    from rich.console import Console

    class PipeConsole(Console):
        """A console that takes text as it is, and lets a closed pipe be an error: rich would exit with 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = PipeConsole(highlight=False, markup=False, emoji=False)
    if not is_terminal(console):
        console.width = 160
    return console


def is_terminal(console: Console) -> bool:
    """Whether the console writes to a terminal; rich believes FORCE_COLOR, which is about colors only."""
    return console.file.isatty()


def print_sentences(console: Console, *sentences: str, style: str | None = None) -> None:
    """Print sentences as they are; in a pipe each is one line."""
    for sentence in sentences:
        console.print(sentence, soft_wrap=not is_terminal(console), style=style)


class Say(Protocol):
    """Shows the current action, and which of several it is."""

    def __call__(self, text: str, done: int = 0, total: int | None = None) -> object:
        """Show the text."""


@contextmanager
def status(text: str, *, quiet: bool) -> Iterator[Say]:
    """Show `text` and a bar while the block runs, if stderr is a terminal; yield the function that shows another."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    stderr = Console(stderr=True)
    if quiet or not is_terminal(stderr):
        yield lambda text, done=0, total=None: None
        return
    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    width = Column(min_width=12)  # however long the text
    bar = Progress(SpinnerColumn(), BarColumn(12, table_column=width), words, console=stderr, transient=True)
    shown = bar.add_task(text, total=None)

    def say(text: str, done: int = 0, total: int | None = None) -> None:
        description = text if total is None else f"{done} of {total}: {text}"
        bar.update(shown, description=description, completed=max(0, done - 1), total=total)

    with bar:
        yield say
