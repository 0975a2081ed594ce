"""Run by test_ranks.py: compare PyTorch's port over some numbers of ranks with the reference, on nets of Hypothesis.

A process is forked for each rank, so that PyTorch is imported only once. Each number of ranks prints a line of JSON.
"""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from comparison.agreement.comparison import (
    Agreement,
    Problem,
    Subject,
    check_forward,
    check_gradient,
)
from comparison.agreement.training import check_training
from comparison.agreement.truth import is_comparable
from comparison.conformance.problems import STEPS, problems
from ports import torch_port
from ports.protocol import DistributedPort, check_port
from ports.torch_port.collectives import RankGroup
from reference.defaults import CLOSED_FORM, DTYPES, STRATEGIES
from reference.two_layer_net import Params, init

MEMORIES = (2**28, 3000)
"""The second cuts the work of a rank into chunks."""


def check_all(subject: Subject, problem: Problem, h: float, memory: int) -> Iterator[Agreement]:
    yield from check_forward(subject, problem)
    yield from check_gradient(subject, problem, None, h)
    yield from check_training(subject, problem, None, h)
    for strategy in STRATEGIES:
        if is_comparable(problem, strategy, subject.dtype, h):
            yield from check_gradient(subject, problem, strategy, h, memory=memory)
            yield from check_training(subject, problem, strategy, h)


def check_rank(examples: int) -> dict[str, Any]:
    """Compare this rank's results with the reference; `same bits` is whether all ranks have the same."""
    port: Any = check_port(torch_port.distribute("all"))
    assert isinstance(port, DistributedPort)
    digest, worst, wrong = hashlib.sha256(), dict.fromkeys(("forward", CLOSED_FORM, *STRATEGIES), 0.0), []

    def to_numpy(array: Any) -> Any:
        digest.update(torch_port.to_numpy(array).tobytes())
        return torch_port.to_numpy(array)

    port.to_numpy = to_numpy

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # all ranks must draw the same, also where one of them is wrong
        suppress_health_check=list(HealthCheck),
    )
    @given(problems(), st.sampled_from(DTYPES), st.sampled_from(STEPS), st.sampled_from(MEMORIES))
    def compare(problem: Problem, dtype: str, h: float, memory: int) -> None:
        for row in check_all(Subject("torch", port, dtype, "cpu"), problem, h, memory):
            strategy = row.strategy or "forward"
            worst[strategy] = max(worst[strategy], row.ratio)
            if not row.agrees:
                wrong.append(f"{strategy} {row.quantity}: {row.got}, expected {row.expected}")

    sent = port.sent(compare)
    silent = port.subset(port.ranks, silent=True)
    *params, x = (torch_port.from_numpy(a, dtype="float64", device="cpu") for a in (*init(2, 3, 2, seed=0), np.eye(2)))
    quiet = silent.sent(lambda: silent.gradient(Params(*params), x, [0, 1]))
    digests = port.gather(digest.hexdigest())
    same = {"same bits": len(set(digests)) == 1, "messages": sent.messages, "messages in silence": quiet.messages}
    return {"ranks": port.ranks, "worst": worst, "wrong": wrong[:5], **same}


def fork(work: Callable[[], object], ranks: int) -> list[int]:
    """Run `work` in a process for each rank, and return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(ranks)}
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            os.environ.update(address, RANK=str(rank))
            code = 1
            try:
                result = work()
                if rank == 0:
                    print(json.dumps(result), flush=True)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _shorter(self: RankGroup, length: int) -> slice:
    return slice(length * self.rank // self.ranks, (length * (self.rank + 1) - 1) // self.ranks)


def _overlapping(self: RankGroup, length: int) -> slice:
    return slice(max(0, length * self.rank // self.ranks - 1), length * (self.rank + 1) // self.ranks)


FAULTS: dict[str, tuple[str, Any]] = {
    "": ("ranks", None),
    "nothing is summed": ("_sum", lambda self, arrays: [array.clone() for array in arrays]),
    "a part ends too early": ("_part", _shorter),
    "parts overlap": ("_part", _overlapping),
    "another sum on each rank": (
        "_sum",
        lambda self, arrays, sum_=RankGroup._sum: [s * (1 + self.rank * 2**-52) for s in sum_(self, arrays)],
    ),
}


def main(examples: str, fault: str, *counts: str) -> None:
    name, wrong = FAULTS[fault]
    if wrong:
        setattr(RankGroup, name, wrong)
    for count in counts:
        codes = fork(lambda: check_rank(int(examples)), int(count))
        assert codes == [0] * int(count), codes


if __name__ == "__main__":
    main(*sys.argv[1:])
