"""From options to the subjects of a comparison, and the problem they are given."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.commands import processes
from comparison.commands.compilation_cache import use_compilation_cache
from comparison.commands.interruption import delayed_signals
from comparison.commands.output import status
from reference.defaults import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from comparison.agreement.bounds import Problem
    from comparison.agreement.comparison import Subject
    from comparison.commands.options import DataOptions, ProblemOptions, Selection
    from ports import Port
    from reference.datasets import Dataset


def load_data(options: DataOptions, dtype: str = "float64", *, quiet: bool) -> Dataset:
    """Load the data set of the options, and show that it is being loaded unless `quiet`."""
    with status(f"loading {options.data} in {dtype}", quiet=quiet):
        return data_loader(options)(dtype=dtype)


def data_loader(options: DataOptions) -> partial[Dataset]:
    """Return the function that loads the data set of the options; it takes a dtype, and can be pickled."""
    from reference.datasets import load
    from reference.validation import check_seed

    check_seed(options.seed)
    return partial(load, options.data, seed=options.seed, inputs=options.inputs, classes=options.classes)


def make_problem(options: ProblemOptions, data: Dataset, strategies: Iterable[str] = ()) -> Problem:
    """Draw the net and the mini-batch, and check every rule on them before a backend is loaded."""
    from comparison.agreement.comparison import random_problem
    from reference.two_layer_net import max_abs
    from reference.validation import check_h, check_h_moves, check_net, check_size

    check_h(options.h)
    check_size("hidden", options.hidden)
    sizes = {"hidden": options.hidden, "outputs": data.classes, "samples": options.batch}
    problem = random_problem(data.x_train, data.t_train, **sizes, seed=options.seed)
    if {"loop", "batched"} & set(strategies):
        check_h_moves(options.h, check_net(problem.params, problem.x, type(problem.x), max_abs), "float64")
    return problem


def load_subjects(options: Selection, *, workers: bool = False) -> tuple[list[Subject], list[dict[str, str]]]:
    """Load the ports that can be run; return them as subjects, and a row with the reason for each other.

    With `workers`, the processes that will compare or time them import the built-in ones at the same time.

    Raises
    ------
    ValueError
        If none can be run, or one that is named is broken, or is missing and `allow_missing` is not set.
    """
    import ports
    from comparison.agreement.comparison import Subject
    from comparison.worker_processes import preload
    from ports.registry import check_exists, reloadable
    from reference.validation import DeviceError, check_device

    subjects, not_run, missing = [], [], []
    if not options.no_cache:
        use_compilation_cache()
    chosen = ports.names(optional=True) if options.backend == ("all",) else options.backend or ports.names()
    sources = tuple(dict.fromkeys((*chosen, *options.port)))
    named = subject_names(sources)
    for source in sources:
        check_exists(source)
    if workers and processes.count() == 1:
        preload(sources)
    with status("loading the ports", quiet=options.quiet) as say:
        for source in sources:
            say(f"loading {named[source]}")
            chosen_by_name = source in (*options.backend, *options.port)
            try:
                with delayed_signals():
                    loaded, devices = _load(source)
            except (ports.NotRunError, ports.PortError) as reason:
                if chosen_by_name and isinstance(reason, ports.PortError):
                    raise
                row = {"backend": source, "reason": str(reason)}
                not_run.append(row)
                missing += [row] * chosen_by_name
                continue
            for device in options.device:
                try:
                    port = _distribute(loaded, options.devices)
                    device = check_device(device, devices if port is loaded else port.devices())
                except (ports.NotRunError, DeviceError) as reason:
                    not_run.append({"backend": source, "reason": str(reason)})
                else:
                    again = str(reloadable(source, loaded))  # absolute: the folder may change
                    subjects += [Subject(named[source], port, dtype, device, again) for dtype in options.dtype]
    if not subjects:
        raise ValueError("Nothing to compare: " + " ".join(f"{row['backend']}: {row['reason']}" for row in not_run))
    if missing and not options.allow_missing:
        reasons = " ".join(f"{row['backend']}: {row['reason']}" for row in missing)
        raise ValueError(f"{reasons} With --allow-missing the others are run without it.")
    return subjects, not_run


def _load(source: str) -> tuple[Port, tuple[str, ...]]:
    """Load a port, and ask for its devices."""
    import ports
    from ports.registry import loading_errors

    if source == "jax" and "XLA_FLAGS" in os.environ:
        _try_xla_flags()
    port = ports.load(source)
    with loading_errors(source):
        return port, port.devices()


def _try_xla_flags() -> None:
    """Raise NotRunError for flags that XLA does not know: it ends the process, so a child process tries them."""
    from ports import NotRunError

    if importlib.util.find_spec("jax") is None:
        return
    settings = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}  # errors are printed, warnings are not
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    if done.returncode:
        logged = re.search(r"^[EF]\d{4} .*?\] (.*)", done.stderr, re.MULTILINE)  # a list of all flags may follow
        words = logged[1] if logged else done.stderr.strip().rpartition("\n")[2]
        raise NotRunError(f"jax does not work here: {words}")


def subject_names(sources: Iterable[str]) -> dict[str, str]:
    """Name each source: a file by its stem, or by as much of its path as tells it from the others."""
    sources = tuple(sources)
    files = {s: Path(s).resolve().with_suffix("").parts for s in sources if s.endswith(".py")}
    if len(set(files.values())) < len(files):
        raise ValueError(f"`--port` must name each file once, got {', '.join(files)}.")
    names = {source: source for source in sources}
    for source, parts in files.items():
        others = {*(s for s in sources if s not in files), *BUILT_IN}
        length = 1
        while "/".join(parts[-length:]) in others or any(
            other[-length:] == parts[-length:] for s, other in files.items() if s != source
        ):
            length += 1
        names[source] = "/".join(parts[-length:])
    return names


def _distribute(port: Port, devices: Any) -> Port:
    """Distribute the port over several devices where --devices or torchrun asks for it."""
    from ports.protocol import Distributable, NotRunError

    if devices in (None, 1) and processes.count() == 1:
        return port
    if not isinstance(port, Distributable):
        raise NotRunError("it runs on one device.")
    distributed: Any = port.distribute(devices or "all")
    return distributed
