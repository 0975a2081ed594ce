"""How long processes that act as one wait for each other."""

import os

PATIENCE = "120"
"""Seconds, unless the variable FDNET_PATIENCE says otherwise."""


def patience() -> int:
    """Return how many seconds to wait; ValueError if FDNET_PATIENCE is none that can be."""
    text = os.environ.get("FDNET_PATIENCE", PATIENCE)
    if not text.isdecimal() or not 0 < int(text) < 10**6:
        raise ValueError(f"`FDNET_PATIENCE` must be a whole number of seconds, from 1 to 999999, got {text!r}.")
    return int(text)
