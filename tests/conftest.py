"""Runs tests marked with `subjects` on the built-in ports, as comparison/conformance does."""

import signal

from comparison.conformance.plugin import (
    pytest_configure,
    pytest_generate_tests,
    pytest_runtest_teardown,
    subject,
)

__all__ = ["pytest_configure", "pytest_generate_tests", "pytest_runtest_teardown", "subject"]

for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):  # tests send them
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:  # by a shell in the background, or nohup
        signal.signal(number, handler)
