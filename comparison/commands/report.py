"""`compare.py report`: the results of all other commands on one page."""

from __future__ import annotations

import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison import PROGRAM
from comparison.commands import argument_types, report_parts
from comparison.commands.benchmark import add_budget, check_budget, check_iterations, check_threads
from comparison.commands.options import add_problem, add_selection, new_command
from comparison.commands.output import check_figures, status, version, write, write_json
from comparison.commands.report_parts import (
    PARTS,
    ReportOptions,
    code_of,
    command_of,
    file_of,
    parts_to_run,
    read_given,
    read_part,
)
from comparison.commands.subjects import load_data, load_subjects, make_problem

if TYPE_CHECKING:
    from comparison.agreement.bounds import Problem
    from comparison.report.page import Report
    from comparison.report.step_study import Pictures


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        ReportOptions,
        help="write a page with the verdict, the advice, and all figures",
        description="Run agree, speed and train, each in a process of its own, and write report.html, report.md and "
        "report.json.",
    )
    add_selection(parser)
    add_problem(parser)
    add = parser.add_argument
    out = "folder of the report; created if it does not exist"
    add("--out", metavar="DIR", type=argument_types.name, required=True, help=out)
    add("--resume", action="store_true", help="keep the parts that an interrupted report has left in the folder")
    add_budget(parser, 30.0, "time of each timing, without first calls")
    add("--iterations", metavar="K", type=int, help="steps of the training (default: those of train)")
    add("--quiet", action="store_true", help="print only errors; the verdict is the exit code")
    for part in PARTS:
        written = "history" if part == "train" else "json"
        help = f"take what {command_of(part)} wrote with --{written}, and don't run it"
        add(f"--{part}-file", metavar="FILE", type=argument_types.name, help=help)


def run(options: ReportOptions) -> int:
    """Run the parts that are neither given nor kept, write the pages, and return the worst exit code of a part."""
    from reference.training import epoch_length

    check_budget(options.budget)
    check_iterations(1 if options.iterations is None else options.iterations)
    check_threads(options.threads)
    check_figures("svg")
    data = load_data(options, quiet=options.quiet)
    problem = make_problem(options, data)
    to_run = parts_to_run(options)
    results = {part: read_given(part, options) for part in PARTS if part not in to_run}
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    _check_writable(out, to_run)
    codes = report_parts.begin(options, out)
    try:
        for part in to_run:
            if part not in codes:
                with status(f"{PROGRAM} {command_of(part)}", quiet=options.quiet):
                    report_parts.run_part(part, options, out, codes)
            results[part] = read_part(part, str(file_of(out, part)))
        pictures = _study(options, problem, results)
        _write_pages(out, options, results, pictures, epoch_length(data, options.batch))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_resume(codes)) from None
    if not options.quiet:
        print("\n".join(map(str, _pages(out))))
    return max(codes.get(part, code_of(part, results[part])) for part in PARTS)


def _pages(out: Path) -> list[Path]:
    return [out / f"report.{ending}" for ending in ("html", "md", "json")]


def _check_writable(out: Path, parts: list[str]) -> None:
    """Raise OSError, before any work, where a file of the report could not be written after it."""
    from reference.files import check_writable

    for path in (*_pages(out), report_parts.begun_file(out), *(file_of(out, part) for part in parts)):
        check_writable(path)


def _how_to_resume(codes: dict[str, int]) -> str:
    kept = ", ".join(command_of(part) for part in codes) or "nothing yet"
    command = [word for word in sys.orig_argv if word != "--resume"]
    return f"interrupted; kept: {kept}; to go on: {shlex.join([*command, '--resume'])}"


def _study(options: ReportOptions, problem: Problem, results: dict[str, Any]) -> Pictures:
    """Add the errors by step to the results, and return the pictures of the gradient."""
    from comparison.report.step_study import errors_by_step, gradient_images

    subjects, _ = load_subjects(replace(options, dtype=("float64",)))
    drawn = [subject for subject in subjects if _agrees(subject.name, results["agree"])]
    with status("error by step, and pictures", quiet=options.quiet):
        results["errors_by_step"] = errors_by_step(problem, options.seed)
        return gradient_images(drawn, problem, h=options.h, memory=options.memory)


def _agrees(name: str, agree: dict[str, Any]) -> bool:
    """Whether the gradients of a backend have been compared, and nothing that its picture needs is wrong."""
    rows = [row for row in agree["agreement"] if row["backend"] == name and row["strategy"] in (None, "collocated")]
    crashed = any(row["backend"] == name for row in agree["crashed"])
    return any(row["strategy"] for row in rows) and all(row["agrees"] for row in rows) and not crashed


def _write_pages(out: Path, options: ReportOptions, results: dict[str, Any], pictures: Pictures, epoch: int) -> None:
    from comparison.report.page import html, markdown

    report = _make_report(options, results, pictures, epoch)
    write(str(out / "report.html"), html(report))
    write(str(out / "report.md"), markdown(report))
    images = {name: images.tolist() for name, images in pictures.images.items()}
    whole = {**results, "gradient_pictures": {"units": pictures.units, **images}}
    write_json(str(out / "report.json"), "report", options, whole)


def _make_report(options: ReportOptions, results: dict[str, Any], pictures: Pictures, epoch: int) -> Report:
    from comparison.report.page import Report
    from comparison.report.sections import sections, verdict

    speed = results["speed"]
    rows = filter(None, (speed["advice"], *speed["advice_for_other_dtypes"]))
    advice = list(dict.fromkeys(row["sentence"] for row in rows))
    title = f"fdnet on {Path(options.data).name}"
    made_with = _made_with(options, speed["environment"])
    return Report(title, *verdict(results["agree"]), advice, sections(results, pictures, epoch), made_with)


def _made_with(options: ReportOptions, machine: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the date, versions, machine and command, by which the report can be made again."""
    from datetime import datetime

    packages = ", ".join(f"{name} {machine[name]}" for name in ("python", "numpy", "torch", "jax") if machine[name])
    return [
        ("Date", f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"),
        ("Versions", f"fdnet {version()}, {packages}"),
        ("Machine", f"{machine['platform']}, {machine['cpus']} cores"),
        ("Command", command_line(options)),
    ]


def command_line(options: ReportOptions) -> str:
    """Return the command with all of its options, those that were left to their defaults included."""
    names = [field.name for field in fields(options) if field.name != "resume"]
    return shlex.join([PROGRAM, "report", *report_parts.words(options, names)])
