"""Where a run of training is cut, so that it can be looked at, saved and stopped.

The borders depend on the sizes and the strategy alone: on nothing that may differ between a run and its resumption, nor
on how long it is to be. For a port plans its collocation nodes from the weights that it finds at the start of a
segment, and with other borders a step could be planned otherwise and rounded otherwise.
"""

from collections.abc import Iterator

from reference.two_layer_net import Params

WORK = 1.2e9
"""Of a segment, in samples x parameters: 300 collocated steps at the chapter's sizes, some tenths of a second."""


def segment_length(params: Params, strategy: str, batch: int) -> int:
    """Return how many iterations make up WORK; `loop` and `batched` pass through the net twice a parameter."""
    size = sum(p.size for p in params)
    weight = {"loop": 2 * size, "batched": 2 * size, "structured": 16}.get(strategy, 1)
    return max(1, int(WORK / (batch * size * weight)))


def borders(start: int, iterations: int, epoch: int, length: int) -> Iterator[tuple[int, bool]]:
    """Yield the ends of the segments after `start`, and whether each is a border; the end of the run need not be one.

    Parameters
    ----------
    start : int
        Where the run goes on: a border, or the end of a shorter run, after which the borders are met again.
    iterations : int
        Where the run ends.
    epoch : int
        Iterations of an epoch, whose ends are borders. Between them lie pieces of equal length, the last one shorter
        where it must be: JAX compiles each length anew.
    length : int
        The length that no piece exceeds.
    """
    piece, end = -(-epoch // -(-epoch // length)), start
    while end < iterations:
        begun = end % epoch
        end = min(end - begun + epoch, end - begun % piece + piece)
        yield min(end, iterations), end <= iterations
