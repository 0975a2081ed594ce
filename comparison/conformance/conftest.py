"""Loads the plugin wherever these tests are collected, and nowhere else."""

from comparison.conformance.plugin import *  # noqa: F403
