"""The examples run from the first line to the last, and the notebook is the script."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from command_lines import ROOT, run_python

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
CHAPTER = EXAMPLES / "chapter_4_5.py"
SCRIPTS = sorted({*EXAMPLES.glob("*.py")} - {CHAPTER})


def run_example(script: Path) -> str:
    """Run a script with nothing installed but what it needs, and return what it prints."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = run_python(str(script), MPLBACKEND="agg", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def cells_of(script: Path) -> list[tuple[str, str]]:
    """Return the kind and the text of each cell, which begins with a line of `# %%`."""
    _, *parts = re.split(r"^# %%(.*)\n", script.read_text(), flags=re.MULTILINE)
    cells = []
    for head, body in zip(parts[::2], parts[1::2], strict=True):
        markdown = head.strip() == "[markdown]"
        text = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE) if markdown else body.strip()
        cells.append(("markdown" if markdown else "code", text))
    return cells


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(EXAMPLES / "chapter_4_5.ipynb", as_version=4)


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_a_script_runs_to_its_end(script: Path) -> None:
    assert run_example(script)


def test_the_chapter_is_learned() -> None:
    last = re.fullmatch(r"training set (\S+), test set (\S+)", run_example(CHAPTER).splitlines()[-1])
    assert last is not None
    assert float(last[1]) > 0.97
    assert float(last[2]) > 0.88


def test_the_notebook_is_the_script(notebook: nbformat.NotebookNode) -> None:
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == cells_of(CHAPTER)


def test_the_notebook_runs_and_shows_what_it_is_stored_with(notebook: nbformat.NotebookNode) -> None:
    stored = [[output.output_type for output in cell.get("outputs", [])] for cell in notebook.cells]
    assert sum("display_data" in outputs for outputs in stored) == 3  # the plots
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    assert [[output.output_type for output in cell.get("outputs", [])] for cell in notebook.cells] == stored
