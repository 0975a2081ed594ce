"""What holds on several devices; test_jax_mesh.py runs it in a process in which JAX simulates eight."""

import math
import re
from contextlib import nullcontext
from functools import cache
from itertools import product
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from by_night import NIGHTLY
from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Agreement, Subject, check_forward, check_gradient, on_device
from comparison.agreement.drift import measure_drifts, run_reference
from comparison.agreement.training import check_training
from comparison.conformance.calls import everything
from comparison.conformance.problems import STEPS, problems
from ports import jax_port
from ports.jax_port.collectives import sent_by
from ports.jax_port.layout import Layout, MeshArray, best_mesh
from ports.jax_port.mesh import MeshPort
from ports.protocol import DistributedPort, check_port
from reference.collocation import make_plan
from reference.datasets import load
from reference.training import begin, train
from reference.two_layer_net import Params, init
from reference.validation import DeviceError

COUNTS = (1, 2, 3, 8)
SHAPES = ((7, 5, 3, 2), (3, 5, 1, 4), (1, 3, 2, 2)) if NIGHTLY else ((7, 5, 3, 2),)  # none that 2, 3 or 8 divide
DIRECT = ("structured", "collocated")
few = settings(max_examples=30 if NIGHTLY else 2)
distributed = cache(MeshPort)


def subject(count: int, dtype: str = "float64") -> Subject:
    return Subject("jax", distributed(count), dtype, "cpu")


def assert_agrees(rows: list[Agreement]) -> None:
    assert rows
    assert [row for row in rows if not row.agrees] == []


# --- agreement


@pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("strategy", DIRECT)
@few
@given(problem=problems(shapes=SHAPES), h=st.sampled_from(STEPS))
def test_gradient(strategy: str, count: int, problem: Problem, h: float) -> None:
    assert_agrees([*check_gradient(subject(count), problem, strategy, h)])


@pytest.mark.parametrize("count", COUNTS if NIGHTLY else (3,))
@pytest.mark.parametrize("strategy", ["loop", "batched", None])
@few
@given(problem=problems(shapes=SHAPES))
def test_other_gradients(strategy: str | None, count: int, problem: Problem) -> None:
    assert_agrees([*check_gradient(subject(count), problem, strategy, 1e-2)])


@pytest.mark.parametrize("count", COUNTS if NIGHTLY else (3, 8))
@few
@given(problem=problems(shapes=SHAPES))
def test_forward(count: int, problem: Problem) -> None:
    assert_agrees([*check_forward(subject(count, "float32"), problem)])


def moderate(samples: int = 13, hidden: int = 5) -> Problem:
    rng = np.random.default_rng(0)
    shapes = ((4, hidden), (hidden,), (hidden, 3), (3,))
    params = Params(*(0.5 * rng.standard_normal(shape) for shape in shapes))
    return Problem(params, rng.uniform(-1, 1, (samples, 4)), rng.integers(0, 3, samples))


@pytest.mark.parametrize(
    ("strategy", "count"),
    product((*DIRECT, "loop", "batched", None), COUNTS)
    if NIGHTLY
    else [*product(["collocated"], COUNTS), ("loop", 3), (None, 3)],
)
def test_training(strategy: str | None, count: int) -> None:
    assert_agrees([*check_training(subject(count), moderate(), strategy, 1e-2)])


@pytest.mark.parametrize("strategy", DIRECT)
def test_many_chunks_on_each_device(strategy: str) -> None:
    """One sample at a time; the last chunk of some devices has none."""
    assert_agrees([*check_gradient(subject(3), moderate(), strategy, 1e-2, memory=1)])


@pytest.mark.parametrize("strategy", DIRECT)
def test_shifts_of_more_than_one(strategy: str) -> None:
    """Padded rows and units must not leave the range of numbers where other formulas are used."""
    problem = moderate()
    stretched = problem._replace(x=3 * problem.x)
    with pytest.warns(RuntimeWarning, match="`structured` takes over") if strategy == "collocated" else nullcontext():
        assert_agrees([*check_gradient(subject(8), stretched, strategy, 1.0)])


@pytest.mark.parametrize("training", [False, True], ids=["gradient", "training"])
def test_the_warning_points_at_the_caller(training: bool) -> None:
    port, (params, x), t = distributed(3), on_device(subject(3), moderate()), moderate().t

    def call() -> None:
        if training:
            options = {"strategy": "collocated", "learning_rate": 0.1, "h": 1.0}
            port.train_steps(params, x, t, np.zeros((1, 2), int), **options)
        else:
            port.GRADIENTS["collocated"](params, x, t, h=1.0)

    with pytest.warns(RuntimeWarning, match="`structured` takes over") as caught:
        call()
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("port", [jax_port, distributed(3)], ids=["one device", "three"])
def test_a_mesh_of_the_caller_changes_nothing(port: Any, axis_type: AxisType) -> None:
    subject, mesh = Subject("jax", port, "float64", "cpu"), jax.make_mesh((8,), ("batch",), (axis_type,))
    expected = everything(subject)
    with jax.set_mesh(mesh):
        for result, other in zip(everything(subject), expected, strict=True):
            np.testing.assert_array_equal(result, other)
        assert jax.sharding.get_mesh() == mesh


# --- layout


def test_wide_nets_are_divided_by_units_and_large_batches_of_narrow_ones_by_samples() -> None:
    devices = tuple(jax.devices())
    wide, narrow = moderate(hidden=10_000).params, moderate(hidden=1).params
    assert dict(best_mesh(devices, wide, 13).shape) == {"batch": 1, "hidden": 8}
    assert dict(best_mesh(devices, narrow, 13).shape) == {"batch": 8, "hidden": 1}


# --- messages


def trained(port: MeshPort, problem: Problem, strategy: str = "collocated", steps: int = 4) -> tuple[Params, MeshArray]:
    params, x = on_device(Subject("jax", port, "float64", "cpu"), problem)
    batches = np.random.default_rng(0).integers(0, len(problem.t), (steps, len(problem.t)))
    return port.train_steps(params, x, problem.t, batches, strategy=strategy, learning_rate=0.1, h=1e-2)


def all_reduced_bytes(program: str) -> list[int]:
    """Return the size of each message of a compiled program."""
    messages = re.findall(r"^ *(?:ROOT )?%\S+ = (.*) all-reduce(?:-start)?\(", program, re.MULTILINE)
    return [
        sum(8 * math.prod(int(n) for n in size.split(",") if n) for size in re.findall(r"f64\[([\d,]*)\]", shapes))
        for shapes in messages
    ]


@pytest.mark.parametrize(("hidden", "axis"), [(1, "batch"), (24, "hidden")])
def test_what_is_counted_is_what_the_compiled_program_sends(hidden: int, axis: str) -> None:
    """In a step the gradient and the loss where the batch is divided, the logits where the units are; the rest once."""
    port, problem, steps = distributed(8), moderate(hidden=hidden), 4
    assert best_mesh(tuple(jax.devices()), problem.params, len(problem.x)).shape[axis] == 8
    sent = port.sent(lambda: trained(port, problem, steps=steps))
    port._calls = []
    trained(port, problem, steps=steps)
    [(program, arguments)], port._calls = port._calls, None
    with jax.enable_x64(True):
        messages = all_reduced_bytes(program.lower(*arguments).compile().as_text())
    samples, outputs = len(problem.x), len(problem.params.b2)
    in_a_step = sum(p.size for p in problem.params) + 1 if axis == "batch" else samples * outputs
    once = [] if axis == "batch" else [8 * steps]  # the largest weights
    assert sorted(messages) == sorted([8 * in_a_step, *once])
    assert sent == (steps + len(once), steps * 8 * in_a_step + sum(once))


@pytest.mark.parametrize("strategy", ["collocated", "batched"])
def test_a_silent_port_sends_nothing_and_is_wrong(strategy: str) -> None:
    port, silent = distributed(8), distributed(8).subset(8, silent=True)
    problem = moderate()
    assert silent.sent(lambda: trained(silent, problem, strategy)) == (0, 0)
    assert port.sent(lambda: trained(port, problem, strategy)).messages > 0
    right, wrong = (np.array(trained(p, problem, strategy)[0].b1) for p in (port, silent))
    assert right.shape == wrong.shape
    assert not np.allclose(right, wrong)


def test_messages_in_loops_of_unknown_length_are_not_counted_wrong() -> None:
    def program(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: jax.lax.psum(x, "a"), x)

    mesh = jax.make_mesh((8,), ("a",), (AxisType.Auto,))
    mapped = jax.shard_map(program, mesh=mesh, in_specs=P("a"), out_specs=P("a"), check_vma=False)
    with pytest.raises(NotImplementedError, match="within `while`"):
        sent_by(jax.make_jaxpr(mapped)(np.ones(8)).jaxpr)


# --- memory


def peak_bytes(count: int, hidden: int) -> int:
    """Return the bytes that a training of a net takes on one device; the net itself is never made."""
    port, dtype = distributed(count), np.dtype("float32")
    params = Params(*(MeshArray(s, dtype, "cpu") for s in ((784, hidden), (hidden,), (hidden, 10), (10,))))
    plan = make_plan(1e-4, 1, 1, "float32")
    program, layout, of_batches = port._descent(
        "collocated", params, MeshArray((200, 784), dtype, "cpu"), (4, 100), 2**26, plan
    )

    def like(array: Layout, kind: np.dtype = dtype) -> jax.ShapeDtypeStruct:
        sharding = jax.sharding.NamedSharding(array.mesh, array.spec)
        return jax.ShapeDtypeStruct(array.shape, kind, sharding=sharding)

    number, index = jax.ShapeDtypeStruct((), dtype), np.dtype("int64")
    net = Params(*map(like, layout.params)), like(layout.x), like(layout.labels, index)
    with jax.enable_x64(True):
        compiled = program.lower(*net, like(of_batches, index), number, number, number).compile()
    memory = compiled.memory_analysis()
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def test_a_net_too_large_for_one_device_is_trained_in_parts() -> None:
    hidden = 100_000
    one, eight = (peak_bytes(count, hidden) for count in (1, 8))
    assert one > 2 * 4 * 784 * hidden  # before and after a step
    assert eight < one / 7


# --- as a port


@pytest.mark.parametrize("count", [0, 9, 2.5, "none"])
def test_other_numbers_of_devices_are_refused(count: object) -> None:
    with pytest.raises(
        DeviceError, match=rf"^`devices` must be from 1 to 8, the devices of JAX here, .* got {count}\.$"
    ):
        jax_port.distribute(count)  # type: ignore[arg-type]


def test_all_are_as_many_as_there_are() -> None:
    assert [len(devices) for devices in jax_port.distribute("all")._devices.values()] == [8]


def test_it_is_a_port_over_several_devices() -> None:
    port = jax_port.distribute(3)
    assert isinstance(check_port(port), DistributedPort)  # type: ignore[arg-type]
    port.barrier()
    assert (port.rank, port.gather({"a": 1})) == (0, [{"a": 1}])


def test_a_run_is_resumed_on_other_devices() -> None:
    data, options = load("random"), {"batch": 10, "h": 1e-2, "learning_rate": 0.1}
    net = init(data.x_train.shape[1], 3, 10, seed=0)
    *_, half = train(distributed(8), begin(net), data, iterations=100, **options)
    *_, end = train(distributed(3), half, data, iterations=200, **options)
    run = run_reference(net, data, dtype="float64", seed=0, strategy="collocated", iterations=200, **options)
    assert run is not None
    assert all(row.agrees for row in measure_drifts(subject(3), end, run))
