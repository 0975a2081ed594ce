"""What devices send each other, as both engines count it."""

from collections.abc import Iterable
from typing import NamedTuple


class Sent(NamedTuple):
    """Messages, each a sum or a gathering over several devices, and the bytes that each device puts into them."""

    messages: int
    payload: int


def total(found: Iterable[Sent]) -> Sent:
    """Return the sum."""
    each = list(found)
    return Sent(sum(sent.messages for sent in each), sum(sent.payload for sent in each))
