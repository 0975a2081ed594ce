"""The types of arguments for argparse: from text to values, or an error that says the rule and the text."""

from __future__ import annotations

import argparse
import re

from reference.defaults import CLOSED_FORM, DTYPES, STRATEGIES


def name(text: str) -> str:
    """Take the name of a file, a folder or a module, which an unset variable of a shell leaves empty."""
    if not text:
        raise argparse.ArgumentTypeError(f"must not be empty, got {text!r}")
    return text


def names(text: str) -> tuple[str, ...]:
    """Parse names separated by commas."""
    parsed = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not parsed:
        raise argparse.ArgumentTypeError(f"must name at least one, got {text!r}")
    return parsed


def dtypes(text: str) -> tuple[str, ...]:
    """Parse names of dtypes."""
    return _known_names(text, DTYPES)


def strategies(text: str) -> tuple[str, ...]:
    """Parse names of strategies, or "all"."""
    return STRATEGIES if text == "all" else _known_names(text, STRATEGIES)


def timed_strategies(text: str) -> tuple[str, ...]:
    """Parse names of strategies and of the closed form, or "all"."""
    known = (CLOSED_FORM, *reversed(STRATEGIES))
    return known if text == "all" else _known_names(text.replace("closed-form", CLOSED_FORM), known)


def _known_names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    for name in names(text):
        if name not in known:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(known)}, got {name!r}")
    return names(text)


def byte_size(text: str) -> int:
    """Parse a number of bytes such as 64MiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)?", text)
    size = float(match[1]) * 1024 ** ("B", "KiB", "MiB", "GiB").index(match[2] or "B") if match else 0
    if not 1 <= size < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a size such as 64MiB, got {text!r}")
    return int(size)


def device_count(text: str) -> int | str:
    """Parse a number of devices, or "all"."""
    if text != "all" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a number of devices, or all, got {text!r}")
    return text if text == "all" else int(text)


def device_counts(text: str) -> int | str | tuple[int, ...]:
    """Parse a number of devices, "all", or several increasing numbers."""
    counts = increasing(text) if "," in text else (device_count(text),)
    return counts if len(counts) > 1 else counts[0]


def increasing(text: str) -> tuple[int, ...]:
    """Parse whole numbers in increasing order."""
    try:
        numbers = tuple(int(name) for name in names(text))
    except ValueError:
        numbers = ()
    if not numbers or numbers != tuple(sorted(numbers)) or numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"must be whole numbers from small to large, got {text!r}")
    return numbers
