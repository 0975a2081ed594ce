"""The sentence that a built-in port refuses a bad call with."""

import re

from comparison.agreement.comparison import Subject
from comparison.conformance.calls import Call, refused


def refusal(subject: Subject, call: Call, function: str) -> str:
    """Return the message of the ValueError of a bad call: one sentence that begins with the argument."""
    message = refused(subject, call, function)
    assert re.fullmatch(r"`.*\.", message)
    assert len(message) < 250
    return message
