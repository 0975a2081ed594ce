"""What a whole run from nothing takes besides its steps: calls, compilation, evaluations."""

from functools import cache
from itertools import pairwise
from typing import NamedTuple

from reference.segments import segment_ends


class Pieces(NamedTuple):
    """What `reference.training.train` makes of a run, besides its steps."""

    calls: int  # of `train_steps`
    lengths: int  # different numbers of steps in them: JAX compiles for each
    evaluations: int  # of the accuracies, that of the initial net included


class RunCosts(NamedTuple):
    """What a whole run from nothing takes besides its later steps, in seconds."""

    one_step: float  # a whole run of one step
    call: float  # a later call of `train_steps`, for one step
    two_steps: float  # the first call for two of them
    evaluation: float
    pieces: tuple[int, int]  # iterations of an epoch, and of a segment

    def total(self, steps: int, step: float) -> float:
        """Compute the time of a run of this number of steps, each of which takes `step` seconds.

        Of one step it is the time measured. Each further call of `train_steps` adds the overhead of a call, each other
        length of a call its compilation, and each evaluation after the first two its time.
        """
        calls, lengths, evaluations = pieces_of_run(steps, *self.pieces)
        overhead = max(0.0, self.call - step)
        compilation = max(0.0, self.two_steps - 2 * step - overhead)
        more = (calls - 1) * overhead + (lengths - 1) * compilation + (evaluations - 2) * self.evaluation
        return self.one_step + (steps - 1) * step + more


@cache
def pieces_of_run(iterations: int, epoch: int, segment: int) -> Pieces:
    """Count what a run of this number of iterations is made of."""
    ends = [0, *(end for end, _ in segment_ends(0, iterations, epoch, segment))]
    lengths = {end - start for start, end in pairwise(ends)}
    return Pieces(len(ends) - 1, len(lengths), sum(end % epoch == 0 or end == iterations for end in ends))
