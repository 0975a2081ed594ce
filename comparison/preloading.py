"""Imports the ports that FDNET_PRELOAD names, whatever fails there; for the fork server of `worker_processes`.

What an import prints is dropped: the command imports the same, and prints it.
"""

import os
from contextlib import suppress
from importlib import import_module

VARIABLE = "FDNET_PRELOAD"


def import_ports(names: str) -> None:
    """Import the built-in ports of these names, which are separated by commas."""
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    for name in names.split(","):
        with suppress(BaseException):  # a framework that does not work is a row of the command
            import_module(f"ports.{name}_port")
    os.dup2(stderr, 1)  # stdout is the command's
    os.dup2(stderr, 2)


if VARIABLE in os.environ:
    import_ports(os.environ[VARIABLE])
