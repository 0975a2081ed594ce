"""`compare.py report`: the results of all other commands on one page."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES
from comparison.commands.benchmark import add_budget, check_budget
from comparison.commands.options import ProblemOptions, Selection, add_problem, add_selection, new_command, settings
from comparison.commands.output import environment, status, write
from comparison.commands.subjects import load_data, load_subjects, make_problem

if TYPE_CHECKING:
    from comparison.report.page import Report

Pictures = tuple[list[int], dict[str, Any]]
"""The hidden units shown, and their images by backend."""
COMPARE = Path(__file__).parents[2] / "compare.py"
PARTS = ("agree", "speed", "hidden", "batch", "train")
"""The parts of the report: agreement, the ladder, the sweeps over hidden units and batches, a training."""
KEYS = {
    "agree": {"agreement", "not_compared", "not_run", "crashed"},
    "speed": {"speed", "excluded", "not_run", "advice", "advice_for_other_dtypes", "environment"},
    "train": {"backend", "dtype", "losses", "accuracies"},
}
"""The keys by which the file of a part is recognized."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Selection, ProblemOptions):
    """The options of `report`; a part whose file is given is not run."""

    out: str
    budget: float
    threads: int | None
    iterations: int
    agree_file: str | None
    speed_file: str | None
    hidden_file: str | None
    batch_file: str | None
    train_file: str | None


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        ReportOptions,
        help="write a page with the advice, the ladder, the agreement and all other figures",
        description="Run agree, speed and a short train, each in a process of its own, and write report.html, "
        "report.md and report.json, with a figure of the ladder beside agreement in light.svg and dark.svg.",
    )
    add_selection(parser)
    add_problem(parser)
    add = parser.add_argument
    add("--out", metavar="DIR", required=True, help="folder of the report; created if it does not exist")
    add_budget(parser, 30.0, "time of each timing, without first calls")
    add("--iterations", metavar="K", type=int, default=1000, help="steps of the training")
    add("--quiet", action="store_true", help="print only errors")
    for part in PARTS:
        written = "history" if part == "train" else "json"
        help = f"take what {_example(part)} wrote with --{written}, and don't run it"
        add(f"--{part}-file", metavar="FILE", help=help)


def _example(part: str) -> str:
    return {"agree": "agree", "speed": "speed --strategy all", "train": "train"}.get(part, f"speed --sweep {part}")


def run(options: ReportOptions) -> int:
    """Run the parts that are not given, write the pages, and return the exit code of agreement."""
    from comparison.report.step_study import errors_by_step, gradient_images
    from reference.training import epoch_length

    check_budget(options.budget)
    data = load_data(options, quiet=options.quiet)
    problem = make_problem(options, data)
    results = {part: _read(part, path) for part in PARTS if (path := getattr(options, f"{part}_file"))}
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    code = AGREES
    for part in PARTS:
        if part not in results:
            with status(f"compare.py {_example(part)}", quiet=options.quiet):
                results[part], part_code = _run_part(part, options, out)
            code = max(code, part_code)
    subjects, _ = load_subjects(replace(options, dtype=("float64",)))
    with status("error by step, and pictures", quiet=options.quiet):
        results["errors_by_step"] = errors_by_step(problem, options.seed)
        pictures = gradient_images(subjects, problem)
    _write_all(out, options, results, pictures, epoch_length(data, options.batch))
    if not options.quiet:
        print(f"{out / 'report.html'}\n{out / 'report.md'}\n{out / 'report.json'}")
    return code


def _read(part: str, path: str) -> Any:
    """Read what a command wrote, and check that it is that command's."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`--{part}-file` must be JSON, got {path!r}: {error}.") from error
    if part == "train":
        fits = isinstance(result, list) and all(isinstance(row, dict) and set(row) >= KEYS[part] for row in result)
    else:
        fits = isinstance(result, dict) and set(result) >= KEYS.get(part, KEYS["speed"])
    if fits and part in ("hidden", "batch"):
        fits = isinstance(result.get("sweep"), dict) and result["sweep"].get("over") == part
    if not fits:
        raise ValueError(f"`--{part}-file` must be what {_example(part)} wrote, got {path!r}.")
    return result


def _run_part(part: str, options: ReportOptions, out: Path) -> tuple[Any, int]:
    """Run a command in a process of its own, where nothing has been compiled yet; return its result and exit code."""
    path = out / f"{part}.json"
    path.unlink(missing_ok=True)  # of an earlier report
    command = [sys.executable, str(COMPARE), *_arguments(part, options, str(path))]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if not path.exists() or done.returncode in (2, 130):
        raise ValueError(f"`compare.py {_example(part)}` wrote nothing: {done.stderr.strip() or done.returncode}")
    return json.loads(path.read_text(encoding="utf-8")), done.returncode


def _arguments(part: str, options: ReportOptions, path: str) -> list[str]:
    """Return the command line of one part."""
    common = ["--data", options.data, "--device", ",".join(options.device), "--dtype", ",".join(options.dtype)]
    common += ["--batch", str(options.batch), "--hidden", str(options.hidden), "--h", str(options.h)]
    common += ["--seed", str(options.seed), "--memory", f"{options.memory}B", "--quiet"]
    common += [f"--port={name}" for name in options.port]
    common += ["--devices", str(options.devices)] if options.devices else []
    common += [f"--{name}={number}" for name in ("inputs", "classes") if (number := getattr(options, name))]
    common += ["--allow-missing"] * (options.allow_missing or not options.backend)
    backends = options.backend
    if part == "train" and not backends:
        import ports

        backends = ports.names()
    common += ["--backend", ",".join(backends)] if backends else []
    if part == "agree":
        return ["agree", *common, "--json", path]
    if part == "train":
        return ["train", *common, "--iterations", str(options.iterations), "--history", path]
    timing = ["--budget", str(options.budget), *(["--threads", str(options.threads)] if options.threads else [])]
    which = ["--strategy", "all"] if part == "speed" else ["--sweep", part]
    return ["speed", *common, *timing, *which, "--json", path]


def _write_all(out: Path, options: ReportOptions, results: dict[str, Any], pictures: Pictures, epoch: int) -> None:
    from comparison.report.figures import svg
    from comparison.report.page import html, markdown
    from comparison.report.timing_figures import headline_figure

    report = _make_report(options, results, pictures, epoch)
    write(str(out / "report.html"), html(report))
    write(str(out / "report.md"), markdown(report))
    whole = {"schema_version": 2, "command": "report", "environment": environment(), "settings": settings(options)}
    images = {name: images.tolist() for name, images in pictures[1].items()}
    whole |= {**results, "gradient_pictures": {"units": pictures[0], **images}}
    write(str(out / "report.json"), json.dumps(whole, indent=1, allow_nan=False) + "\n")
    if results["speed"]["speed"] and results["agree"]["agreement"]:
        figure = headline_figure(results["speed"]["speed"], results["agree"]["agreement"])
        for scheme, ink in (("light", "#1b1f24"), ("dark", "#e6edf3")):
            write(str(out / f"{scheme}.svg"), svg(figure, ink))


def _make_report(options: ReportOptions, results: dict[str, Any], pictures: Pictures, epoch: int) -> Report:
    from comparison.report.page import Report
    from comparison.report.sections import sections

    speed = results["speed"]
    rows = filter(None, (speed["advice"], *speed["advice_for_other_dtypes"]))
    advice = list(dict.fromkeys(row["sentence"] for row in rows))
    machine = speed["environment"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "numpy", "torch", "jax") if machine[name])
    problem = f"--data {options.data} --batch {options.batch} --hidden {options.hidden}"
    made_with = [
        ("Versions", versions),
        ("Machine", f"{machine['platform']}, {machine['cpus']} cores"),
        ("Command", f"compare.py report {problem} --out DIR"),
    ]
    title = f"fdnet on {Path(options.data).name}"
    return Report(title, advice, sections(results, *pictures, epoch), made_with)
