"""Runs tests marked with `subjects` on the built-in ports, as comparison/conformance does."""

import signal

from comparison.conformance.plugin import (
    pytest_configure,
    pytest_generate_tests,
    pytest_runtest_teardown,
    subject,
)

__all__ = ["pytest_configure", "pytest_generate_tests", "pytest_runtest_teardown", "subject"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's, of what it runs in the background: tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)
