import re
from html.parser import HTMLParser

from rich.table import Table
from rich.text import Text

from comparison.report.page import Report, Section, html, markdown


def report() -> Report:
    table = Table("name", "value")
    table.columns[1].justify = "right"
    table.add_row(Text("agrees", "green"), "1 < 2")
    table.add_row()
    sections = [
        Section("With a figure", "See <this>.", '<svg viewBox="0 0 1 1"></svg>', None, ["a note"], "The caption."),
        Section("A figure alone", "See this, too.", "<svg></svg>", None),
        Section("With a table", "Numbers.", None, table),
    ]
    return Report(
        "fdnet on <digits>", "All agree.", True, ["Take numpy & be happy."], sections, [("Versions", "numpy 2")]
    )


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_pages_open_with_the_verdict_and_then_the_advice() -> None:
    text = html(report())
    assert text.index("All agree.") < text.index("Take numpy &amp; be happy.") < text.index("<section>")
    assert markdown(report()).startswith("# fdnet on <digits>\n\n**All agree.**\n\n**Take numpy & be happy.**\n")


def test_a_disagreement_is_marked() -> None:
    assert 'class="answer agrees"' in html(report())
    assert 'class="answer wrong"' in html(report()._replace(agrees=False))


def test_what_is_shown_is_escaped_and_figures_are_not() -> None:
    text = html(report())
    assert "fdnet on &lt;digits&gt;" in text
    assert "See &lt;this&gt;." in text
    assert "1 &lt; 2" in text
    assert '<svg viewBox="0 0 1 1"></svg>' in text


def test_every_tag_is_closed() -> None:
    page = Page(html(report()))
    assert page.open == []
    assert page.tags.count("section") == 3
    assert page.tags.count("tr") == 2  # the heading and one row: lines that part groups are left out


def test_nothing_is_fetched() -> None:
    text = html(report())
    assert not re.search(r"https?://|url\(|@import|<script|src=", text)


def test_markdown_has_the_same_as_a_table_and_speaks_of_no_figure() -> None:
    text = markdown(report())
    assert "a note" in text
    assert "The caption." in html(report())
    assert "The caption." not in text
    assert "A figure alone" not in text
    assert "# fdnet on <digits>" in text
    assert "**Take numpy & be happy.**" in text
    assert "| name | value |\n| --- | ---: |\n| agrees | 1 \\< 2 |\n" in text


def test_what_a_row_is_about_is_one_cell_in_every_row_and_no_line_ends_within_an_option() -> None:
    table = Table("backend", "strategy", "gap")
    table.add_row("numpy", "loop", "1")
    table.add_row("", "batched", "2")
    page = report()._replace(sections=[Section("Rows", "See.", None, table, ["a share of --budget <5"])])
    assert "| backend, strategy | gap |" in markdown(page)
    assert "| numpy loop | 1 |\n| numpy batched | 2 |\n" in markdown(page)
    assert '<th scope="row">numpy batched</th><td>2</td>' in html(page)
    assert 'a share of <span class="option">--budget</span> &lt;5' in html(page)
    assert Page(html(page)).open == []
