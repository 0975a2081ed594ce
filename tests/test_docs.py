"""The pages: no dead link, no page without a link, no code that is too wide, and figures beside their commands."""

import re
from pathlib import Path

import pytest

import compare

ROOT = Path(compare.__file__).parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PICTURES = sorted((ROOT / "docs/pictures").glob("*.svg"))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def links(page: Path) -> list[str]:
    """Return the targets of a page: of links and images in Markdown and in HTML, outside of code."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)


def local(page: Path) -> set[Path]:
    """Return the files that a page links to."""
    targets = (target.partition("#")[0] for target in links(page) if "://" not in target)
    return {(page.parent / target).resolve() for target in targets if target}


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_link_is_dead(page: Path) -> None:
    assert [str(path) for path in local(page) if not path.exists()] == []
    for target in links(page):
        path, _, anchor = target.partition("#")
        if anchor and "://" not in target and path.endswith((".md", "")) and not path.endswith(".svg"):
            assert anchor in anchors((page.parent / path).resolve() if path else page)


def test_every_page_is_linked_from_the_readme_and_every_picture_from_a_page() -> None:
    assert set(PAGES[1:]) <= local(PAGES[0])
    assert set(PICTURES) <= set().union(*map(local, PAGES))


def test_the_readme_is_short_and_its_code_is_not_wide() -> None:
    text = PAGES[0].read_text()
    assert text.count("\n") <= 150
    code = "".join(re.findall(r"```.*?```", text, re.DOTALL))
    assert max(map(len, code.splitlines())) <= 100


def test_the_setup_commands_stand_in_the_readme_and_ci_runs_them() -> None:
    setup = "python3 -m venv .venv && .venv/bin/python -m pip install -e"
    text = PAGES[0].read_text()
    assert f"\n{setup} . && .venv/bin/python compare.py\n" in text
    assert f'\n{setup} ".[test]" && .venv/bin/python -m pytest\n' in text
    assert f'\n{setup} ".[test]" && .venv/bin/python -m pytest' in (ROOT / ".ci/run").read_text().replace(
        "--quiet ", ""
    )


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_measured_figures_stand_beside_their_command_and_within_markers(page: Path) -> None:
    text = page.read_text()
    assert text.count("<!-- figures: ") + text.count("<!-- seconds: ") == text.count("<!-- end -->")
    outside = re.sub(r"<!-- (figures|seconds): .*?<!-- end -->", "", text, flags=re.DOTALL)
    assert re.findall(r"\d (?:us|ms|MiB)\b", outside) == []
