"""The variables by which processes of JAX are told of each other; importing this imports no framework."""

from collections.abc import Mapping

from reference.validation import DeviceError


def check(environment: Mapping[str, str]) -> tuple[str, int, int]:
    """Return the coordinator's address, how many processes there are, and which of them this is.

    Raises
    ------
    DeviceError
        If one of the variables is missing, or is none that can be.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, mine = (environment.get(name, "") for name in names)
    if not (count.isdecimal() and mine.isdecimal() and int(mine) < int(count)):
        raise DeviceError(
            "JAX_PROCESS_ID must be a number from 0 to JAX_NUM_PROCESSES - 1 where JAX_COORDINATOR_ADDRESS is set, got "
            f"{mine!r} of {count!r}."
        )
    if not address.rpartition(":")[2].isdecimal():
        raise DeviceError(f"JAX_COORDINATOR_ADDRESS must be of the form address:port, got {address!r}.")
    return address, int(count), int(mine)
