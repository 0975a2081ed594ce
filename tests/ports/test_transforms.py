"""A call within inference mode, torch.compile or a transform of JAX does what it does outside."""

from operator import add
from typing import Any

import numpy as np
import pytest

from comparison.agreement.comparison import Subject
from comparison.conformance.calls import BATCHES, good_call, on_backend
from comparison.conformance.problems import loaded
from reference.two_layer_net import Params, init
from surroundings import bits


def test_what_a_call_returns_in_inference_mode_can_be_changed_later() -> None:
    port: Any = loaded("torch")
    import torch

    call = on_backend(Subject("torch", port, "float64", "cpu"), good_call())
    with torch.inference_mode():
        y = port.predict(call.params, call.x)
    y += 1
    assert not y.is_inference()


def test_a_call_within_the_callers_torch_compile_is_not_compiled() -> None:
    port: Any = loaded("torch")
    import torch

    subject, graphs = Subject("torch", port, "float64", "cpu"), []

    def keep(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda z: (bits(subject), z + 1), backend=keep)
    assert compiled(torch.ones(1))[0] == bits(subject)
    assert {node.target for graph in graphs for node in graph.graph.nodes if node.op.startswith("call")} <= {add}


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap"])
def test_a_call_within_a_transform_of_jax_computes_at_once(transform: str) -> None:
    port: Any = loaded("jax")
    import jax

    subject = Subject("jax", port, "float64", "cpu")
    call, results = on_backend(subject, good_call()), []

    def traced(z: Any) -> Any:
        results.append([port.loss(*call[:3]), port.GRADIENTS["collocated"](*call[:3])])
        results[-1].append(port.train_steps(*call[:3], BATCHES, strategy="collocated", learning_rate=0.1))
        return z

    traced(1.0)
    z = jax.numpy.ones(2) if transform == "vmap" else 1.0
    getattr(jax, transform)(traced)(z)
    expected, got = ([np.asarray(a).tobytes() for a in jax.tree.leaves(result)] for result in results)
    assert got == expected


def test_a_warning_within_a_transform_of_jax_names_the_callers_line() -> None:
    port: Any = loaded("jax")
    import jax

    arrays = (*init(2, 2, 2, 1.0, seed=0), np.full((1, 2), 900.0))
    *params, x = (port.from_numpy(array, dtype="float64", device="cpu") for array in arrays)
    with pytest.warns(RuntimeWarning, match="`collocated` needs more than 8 nodes") as warned:
        jax.jit(lambda z: (port.GRADIENTS["collocated"](Params(*params), x, [0], h=1.0), z)[1])(1.0)
    assert [warning.filename for warning in warned] == [__file__]
