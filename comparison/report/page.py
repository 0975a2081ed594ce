"""The report's pages: one HTML file that needs nothing else, and the same in Markdown."""

import re
from collections.abc import Sequence
from importlib.resources import files
from itertools import accumulate, takewhile
from typing import Any, NamedTuple

from jinja2 import Environment
from markupsafe import Markup, escape
from rich.table import Table
from rich.text import Text

from comparison.report.agreement_tables import headings, markdown_cell

NAMES = ("backend", "dtype", "strategy")
"""Columns that name a row: on the page they are one column, which stays in sight on a phone."""
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")


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
        columns = [(str(c.header), str(c.justify)) for c in self.table.columns] if self.table else []
        names = self._count_names()
        return [(", ".join(name for name, _ in columns[:names]), "left"), *columns[names:]]

    def _count_names(self) -> int:
        """Count the columns that name a row: the leading ones that are in NAMES, at least one."""
        return max(1, len(list(takewhile(NAMES.__contains__, headings(self.table))))) if self.table else 1

    def rows(self) -> list[list[str]]:
        """Return the table's cells as plain text, without the empty lines that part its groups."""
        if self.table is None:
            return []
        cells = (
            [cell.plain if isinstance(cell, Text) else str(cell) for cell in column.cells]
            for column in self.table.columns
        )
        count, rows = self._count_names(), [row for row in zip(*cells, strict=True) if any(row)]
        names = accumulate((row[:count] for row in rows), _fill)
        return [[" ".join(name), *row[count:]] for name, row in zip(names, rows, strict=True)]


def _fill(above: Sequence[str], row: Sequence[str]) -> list[str]:
    """Fill in the names that a table leaves out because they are the same in the row above."""
    return [name or upper for name, upper in zip(row, above, strict=True)]


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


def _keep_options_whole(text: str) -> Markup:
    """Mark options of the command line in HTML, so that no line breaks within `--budget`."""
    return Markup(OPTION.sub(r'<span class="option">\g<0></span>', str(escape(text))))


def _render(name: str, report: Report, *, autoescape: bool) -> str:
    environment = Environment(autoescape=autoescape, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"cell": markdown_cell, "options": _keep_options_whole}
    template = environment.from_string(files("comparison.report").joinpath(name).read_text(encoding="utf-8"))
    context: dict[str, Any] = report._asdict()
    return template.render(context)
