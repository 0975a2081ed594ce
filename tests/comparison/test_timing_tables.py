import pytest
from rich.console import Console

from comparison.report.agreement_tables import headings
from comparison.report.timing_tables import (
    DROPPABLE,
    break_even_table,
    change_table,
    estimate_notes,
    names_in_words,
    seconds,
    self_check_sentence,
    speed_notes,
    speed_table,
)
from comparison.timing.baseline import Change
from comparison.timing.recommendation import Timing
from comparison.timing.rounds import Interval
from comparison.timing.self_check import SelfCheck
from timings import contender


def timing(backend: str, dtype: str, ratio: float) -> Timing:
    around = Interval(1.234e-3, 1.2e-3, 1.3e-3)
    c = contender(backend, dtype=dtype, first=0.5)._replace(error=1e-7, peak_bytes=2**20)
    return Timing(c, around, Interval(ratio, ratio - 0.1, ratio + 0.1), Interval(2, 1, 3), 30, 1.5)


TIMINGS = [timing("numpy", "float64", 1.5), timing("torch", "float32", 12.3)]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_narrow_terminal_does_without_columns_and_cuts_none(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=width).print(speed_table(TIMINGS, width))
    heading, *lines = capsys.readouterr().out.splitlines()
    assert "…" not in heading + "".join(lines)
    assert all(word in "".join(lines) for word in ("numpy float64", "torch float32", "collocated", "1.23 ms", "12.3"))
    dropped = [name for name in DROPPABLE if name not in heading]
    assert dropped == list(DROPPABLE[: len(dropped)])
    assert (len(dropped) > 0) == (width < 160)


@pytest.mark.parametrize(
    ("width", "words"), [(120, "its interval are of later"), (70, "the median is of later"), (40, "")]
)
def test_a_note_speaks_of_columns_that_are_shown(width: int, words: str) -> None:
    notes = speed_notes(TIMINGS, headings(speed_table(TIMINGS, width)))
    assert len(notes) == bool(words)
    assert words in "".join(notes)


def test_a_column_without_any_figure_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    without = [t._replace(to_closed_form=None) for t in TIMINGS]
    Console(width=160).print(speed_table(without, 160))
    heading = capsys.readouterr().out.splitlines()[0]
    assert "x closed form" not in heading
    assert "peak" in heading


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_the_table_of_totals_is_folded_and_not_cut(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    tie = [{"backend": name, "strategy": "collocated"} for name in ("numpy", "torch", "jax")]
    rows = [{"steps": steps, **tie[0], "seconds": 12.3, "tie": tie} for steps in (1, 1_000_000)]
    table = break_even_table([{"dtype": dtype, "break_even": rows} for dtype in ("float64", "float32")])
    Console(width=width).print(table)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "1,000,000" in shown
    assert ("numpy or torch or jax collocated, 12.3 s" in shown) == (width == 160)


@pytest.mark.parametrize("width", [44, 60, 80])
def test_a_table_of_changes_wraps_its_names_and_cuts_no_number(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    key = ("torch-compiled", "collocated", "float32", "cpu")
    change = Change(key, ("numpy", *key[1:]), Interval(0.123, 0.12, 0.125), Interval(0.15, 0.14, 0.16))
    Console(width=width).print(change_table([change]))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "1.22 (1.12 to 1.33)" in shown


def test_contenders_of_several_strategies_are_named_in_full() -> None:
    rows = [{"backend": "numpy", "strategy": "structured"}, {"backend": "jax", "strategy": "collocated"}]
    assert names_in_words(rows) == "numpy structured or jax collocated"
    assert names_in_words(rows[1:]) == "jax collocated"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (1.5e-6, "1.5 us"), (0.0999, "99.9 ms"), (1.0, "1 s"), (999.0, "999 s"), (12345.6, "12,346 s")],
)
def test_seconds(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_the_self_check_has_its_share_with_an_interval() -> None:
    """Wilson's interval of 5 of 100 is 2.15% to 11.18%."""
    assert self_check_sentence(SelfCheck(100, 5, 1)) == (
        "Each contender against itself, 100 verdicts: 5 told apart, 5.0% (2.2% to 11.2%; nominal 5%); "
        "1 named as a winner, 1.0%."
    )


def test_estimates_are_a_range_of_parameters() -> None:
    small, large, all_else = "192 of 39,760 parameters", "1,390 of 39,760 parameters", "5 of 10 parameters"
    run = "its evaluations, its steps and its start, which the interval leaves out"
    estimates = [("loop", large), ("loop", small), ("batched", None), ("batched", all_else), ("collocated", run)]
    notes = estimate_notes([*estimates, ("collocated", run)])
    assert notes == [
        "~ loop is estimated from 192 to 1,390 of 39,760 parameters.",
        "~ batched is estimated from 5 of 10 parameters.",
        "~ collocated is estimated from its evaluations, its steps and its start, which the interval leaves out.",
    ]
