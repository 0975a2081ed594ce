"""Where a training run is cut into segments, so that it can be evaluated, saved and stopped.

The segments depend only on the sizes and the strategy: on nothing that may differ between a run and its resumption, and
not on the number of iterations. A port plans its collocation nodes from the weights at the start of a segment, so that
with other segments a step could be planned, and rounded, differently.
"""

from collections.abc import Iterator

from reference.two_layer_net import Params

WORK = 1.2e9
"""Samples x parameters of a segment: 300 collocated steps at the chapter's sizes, some tenths of a second."""


def segment_length(params: Params, strategy: str, batch: int) -> int:
    """Return how many iterations make up WORK; `loop` and `batched` pass through the net twice for each parameter."""
    size = sum(p.size for p in params)
    weight = {"loop": 2 * size, "batched": 2 * size, "structured": 16}.get(strategy, 1)
    return max(1, int(WORK / (batch * size * weight)))


def segment_ends(start: int, iterations: int, epoch: int, length: int) -> Iterator[tuple[int, bool]]:
    """Yield where each piece of the run after `start` ends, and whether that is the end of a segment.

    The end of the run may lie within a segment.

    Parameters
    ----------
    start : int
        Where the run resumes: the end of a segment, or of a shorter run.
    iterations : int
        Where the run ends.
    epoch : int
        Iterations of an epoch; each ends a segment. The segments of an epoch have equal lengths, but for the last,
        which may be shorter: JAX compiles again for each length.
    length : int
        The largest length of a segment.
    """
    piece, end = -(-epoch // -(-epoch // length)), start
    while end < iterations:
        since_epoch = end % epoch
        end = min(end - since_epoch + epoch, end - since_epoch % piece + piece)
        yield min(end, iterations), end <= iterations
