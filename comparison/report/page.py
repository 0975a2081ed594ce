"""The report's pages: one HTML file that needs nothing else, and the same in Markdown."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment
from rich.table import Table
from rich.text import Text

from comparison.report.agreement_tables import markdown_cell


class Section(NamedTuple):
    """A figure or a table, with the sentence that says what to see; the caption belongs to the figure."""

    title: str
    sentence: str
    figure: str | None  # SVG
    table: Table | None
    notes: Sequence[str] = ()
    caption: str = ""

    def columns(self) -> list[tuple[str, str]]:
        """Return the table's headings, and the side that each is aligned to."""
        return [(str(c.header), str(c.justify)) for c in self.table.columns] if self.table else []

    def rows(self) -> list[list[str]]:
        """Return the table's cells as plain text, without the empty lines that part its groups."""
        if self.table is None:
            return []
        cells = (
            [cell.plain if isinstance(cell, Text) else str(cell) for cell in column.cells]
            for column in self.table.columns
        )
        return [list(row) for row in zip(*cells, strict=True) if any(row)]


class Report(NamedTuple):
    """The contents of the pages."""

    title: str
    verdict: str
    agrees: bool
    advice: Sequence[str]
    sections: Sequence[Section]
    made_with: Sequence[tuple[str, str]]  # versions, machine, commands


def html(report: Report) -> str:
    """Render the page in HTML."""
    return _render("report.html.jinja", report, autoescape=True)


def markdown(report: Report) -> str:
    """Render the same page in Markdown, without figures, and without the sections that have nothing else."""
    with_text = [section for section in report.sections if section.table or section.notes]
    return _render("report.md.jinja", report._replace(sections=with_text), autoescape=False)


def _render(name: str, report: Report, *, autoescape: bool) -> str:
    environment = Environment(autoescape=autoescape, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["cell"] = markdown_cell
    template = environment.from_string(files("comparison.report").joinpath(name).read_text(encoding="utf-8"))
    context: dict[str, Any] = report._asdict()
    return template.render(context)
