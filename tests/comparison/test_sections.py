"""What the report says of a sweep is what the sweep found: who overtakes whom, and what was left out of it."""

from typing import Any

from comparison.report.sections import _left_out, _price, _who_overtakes


def timed(backend: str, hidden: int = 10, **changes: Any) -> dict[str, Any]:
    key = {"backend": backend, "dtype": "float64", "strategy": "collocated"}
    return {**key, "sizes": {"hidden": hidden}, "ratio_to_closed_form": 2.0} | changes


def swept(rows: list[dict[str, Any]], left_out: list[dict[str, Any]] | None = None, **results: Any) -> dict[str, Any]:
    sweep = {"sizes": [10, 25, 1000], "crossovers": [], "no_winner": None} | results
    return {"speed": rows, "left_out": left_out or [], "sweep": sweep}


def test_nobody_overtakes_only_where_somebody_could() -> None:
    two = [timed("numpy"), timed("jax")]
    assert _who_overtakes(swept(two), "hidden") == ["Nobody overtakes another beyond doubt."]
    assert _who_overtakes(swept(two[:1]), "hidden") == ["Only numpy was timed."]
    assert _who_overtakes(swept([]), "hidden") == ["Nothing was timed."]
    assert _who_overtakes(swept(two, no_winner="The machine was busy."), "hidden") == ["The machine was busy."]


def test_what_was_left_out_is_named_with_its_sizes() -> None:
    rows = [timed("numpy", 10), timed("numpy", 25)]
    left_out = [timed("torch"), timed("numpy"), timed("torch")]
    assert _left_out(swept(rows, left_out), "hidden") == [
        "Left out, for want of --budget: torch float64 collocated at 10, 25, 1,000; numpy float64 collocated at 1,000."
    ]
    assert _left_out(swept(rows), "hidden") == []


def test_the_price_is_that_of_the_backends_that_were_timed() -> None:
    rows = [timed("numpy", ratio_to_closed_form=2.5), timed("numpy", ratio_to_closed_form=None), timed("jax")]
    expected = " Collocated takes 2 to 2.5 times as long as the closed form, backpropagation, of the same backend "
    assert _price(rows) == f"{expected}(numpy, jax)."
    assert _price([timed("jax", ratio_to_closed_form=None)]) == ""
