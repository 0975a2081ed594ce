"""Faults that show only in calls of some kind: at least two of each kind, in different styles."""

from faults_of_arguments import ARGUMENTS, SIZES, VALUES
from faults_of_calls import MEMORY, STEPS, TRAINING
from faults_of_state import STATE

KINDS = {
    "sizes": SIZES,
    "values": VALUES,
    "arguments": ARGUMENTS,
    "state": STATE,
    "training": TRAINING,
    "memory": MEMORY,
    "steps": STEPS,
}
FAULTS = {f"{kind}: {name}": fault for kind, faults in KINDS.items() for name, fault in faults.items()}
