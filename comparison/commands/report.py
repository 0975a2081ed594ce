"""`compare.py report`: all that the other commands find, on one page."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES
from comparison.commands.options import add_problem, add_subjects, new_command, problem, settings, subjects
from comparison.commands.output import environment, waiting, write
from comparison.commands.speed import check_budget

if TYPE_CHECKING:
    from comparison.report.page import Report

Pictures = tuple[list[int], dict[str, Any]]
"""The hidden units shown, and their images by backend."""
COMPARE = Path(__file__).parents[2] / "compare.py"
PARTS = ("agree", "speed", "hidden", "batch", "train")
"""What the report is made of: agreement, the ladder, the sweeps over hidden units and batches, a training."""
KEYS = {
    "agree": {"agreement", "not_compared", "not_run", "crashed"},
    "speed": {"speed", "barred", "not_run", "advice", "advice_for_other_dtypes", "environment"},
    "train": {"backend", "dtype", "losses", "accuracies"},
}
"""What a file must have, by which it is known."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        help="write a page with the advice, the ladder, the agreement and all other figures",
        description="Run agree, speed and a short train, each in a process of its own, and write report.html, "
        "report.md and report.json, with a figure of the ladder beside agreement in light.svg and dark.svg.",
    )
    add_subjects(parser)
    add_problem(parser)
    add = parser.add_argument
    add("--out", metavar="DIR", required=True, help="folder of the report; made if need be")
    add("--budget", metavar="SECONDS", type=float, default=30.0, help="what each timing may take, first calls apart")
    add("--threads", metavar="N", type=int, help="cores for each backend (default: all)")
    add("--iterations", metavar="K", type=int, default=1000, help="steps of the training")
    add("--quiet", action="store_true", help="print nothing but errors")
    for part in PARTS:
        written = "history" if part == "train" else "json"
        add(
            f"--{part}-file",
            metavar="FILE",
            help=f"take what {_example(part)} wrote with --{written}, and don't run it",
        )


def _example(part: str) -> str:
    return {"agree": "agree", "speed": "speed --strategy all", "train": "train"}.get(part, f"speed --sweep {part}")


def run(args: argparse.Namespace) -> int:
    """Run what was not given, write the pages, and return the exit code of agreement."""
    from reference.datasets import load
    from reference.training import epoch_length

    check_budget(args.budget)
    data = load(args.data, seed=args.seed)
    net = problem(argparse.Namespace(**vars(args) | {"strategy": ()}), data)
    found = {part: _read(part, path) for part in PARTS if (path := getattr(args, f"{part}_file"))}
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    code = AGREES
    for part in PARTS:
        if part not in found:
            with waiting(f"compare.py {_example(part)}", args.quiet):
                found[part], ended = _run(part, args, out)
            code = max(code, ended)
    from comparison.report.step_study import errors_by_step, images

    usable, _ = subjects(argparse.Namespace(**vars(args) | {"dtype": ("float64",)}))
    with waiting("error by step, and pictures", args.quiet):
        found["errors_by_step"] = errors_by_step(net, args.seed)
        pictures = images(usable, net)
    _write_all(out, args, found, pictures, epoch_length(data, args.batch))
    if not args.quiet:
        print(f"{out / 'report.html'}\n{out / 'report.md'}\n{out / 'report.json'}")
    return code


def _read(part: str, path: str) -> Any:
    """Return what a command wrote, with a look at whether it is that command's."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`--{part}-file` must be JSON, got {path!r}: {error}.") from error
    if part == "train":
        fits = isinstance(found, list) and all(isinstance(row, dict) and set(row) >= KEYS[part] for row in found)
    else:
        fits = isinstance(found, dict) and set(found) >= KEYS.get(part, KEYS["speed"])
    if fits and part in ("hidden", "batch"):
        fits = isinstance(found.get("sweep"), dict) and found["sweep"].get("over") == part
    if not fits:
        raise ValueError(f"`--{part}-file` must be what {_example(part)} wrote, got {path!r}.")
    return found


def _run(part: str, args: argparse.Namespace, out: Path) -> tuple[Any, int]:
    """Run a command in a process of its own, where nothing has been compiled yet, and return what it wrote."""
    path = out / f"{part}.json"
    path.unlink(missing_ok=True)  # of an earlier report
    command = [sys.executable, str(COMPARE), *_arguments(part, args, str(path))]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if not path.exists() or done.returncode in (2, 130):
        raise ValueError(f"`compare.py {_example(part)}` wrote nothing: {done.stderr.strip() or done.returncode}")
    return json.loads(path.read_text(encoding="utf-8")), done.returncode


def _arguments(part: str, args: argparse.Namespace, path: str) -> list[str]:
    """Return the command line of one part."""
    common = ["--data", args.data, "--device", ",".join(args.device), "--dtype", ",".join(args.dtype)]
    common += ["--batch", str(args.batch), "--hidden", str(args.hidden), "--step", str(args.step)]
    common += ["--seed", str(args.seed), "--chunk-memory", f"{args.chunk_memory}B", "--quiet"]
    common += [f"--port={name}" for name in args.port]
    common += ["--devices", str(args.devices)] if args.devices else []
    names = args.backend
    if part == "train" and not names:
        import ports

        names = ports.names()
    common += ["--backend", ",".join(names)] if names else []
    if part == "agree":
        return ["agree", *common, "--json", path]
    if part == "train":
        return ["train", *common, "--iterations", str(args.iterations), "--history", path]
    timing = ["--budget", str(args.budget), *(["--threads", str(args.threads)] if args.threads else [])]
    which = ["--strategy", "all"] if part == "speed" else ["--sweep", part]
    return ["speed", *common, *timing, *which, "--json", path]


def _write_all(out: Path, args: argparse.Namespace, found: dict[str, Any], pictures: Pictures, epoch: int) -> None:
    from comparison.report.figures import svg
    from comparison.report.page import html, markdown
    from comparison.report.timing_figures import headline

    report = _report(args, found, pictures, epoch)
    write(str(out / "report.html"), html(report))
    write(str(out / "report.md"), markdown(report))
    whole = {"schema_version": 1, "command": "report", "environment": environment(), "settings": settings(args)}
    shown = {name: images.tolist() for name, images in pictures[1].items()}
    whole |= {**found, "gradient_pictures": {"units": pictures[0], **shown}}
    write(str(out / "report.json"), json.dumps(whole, indent=1, allow_nan=False) + "\n")
    if found["speed"]["speed"] and found["agree"]["agreement"]:
        picture = headline(found["speed"]["speed"], found["agree"]["agreement"])
        for scheme, ink in (("light", "#1b1f24"), ("dark", "#e6edf3")):
            write(str(out / f"{scheme}.svg"), svg(picture, ink))


def _report(args: argparse.Namespace, found: dict[str, Any], pictures: Pictures, epoch: int) -> Report:
    from comparison.report.page import Report
    from comparison.report.sections import sections

    speed = found["speed"]
    advice = [row["sentence"] for row in (speed["advice"], *speed["advice_for_other_dtypes"]) if row]
    made = speed["environment"]
    versions = ", ".join(f"{name} {made[name]}" for name in ("python", "numpy", "torch", "jax") if made[name])
    command = f"compare.py report --data {args.data} --batch {args.batch} --hidden {args.hidden} --out DIR"
    made_with = [("Versions", versions), ("Machine", f"{made['platform']}, {made['cpus']} cores"), ("Command", command)]
    return Report(f"fdnet on {Path(args.data).name}", advice, sections(found, *pictures, epoch), made_with)
