"""Runs tests marked with `subjects` on the built-in ports, as comparison/conformance does."""

from comparison.conformance.plugin import (
    pytest_configure,
    pytest_generate_tests,
    pytest_runtest_teardown,
    subject,
)

__all__ = ["pytest_configure", "pytest_generate_tests", "pytest_runtest_teardown", "subject"]
