"""The message about a module that is no port names what it lacks."""

import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from comparison.conformance.problems import subjects
from ports import numpy_port
from ports.protocol import Distributable, DistributedPort, Port, PortError, check_port
from reference.defaults import STRATEGIES

MEMBERS = [name for name, _ in inspect.getmembers(Port, inspect.isfunction) if not name.startswith("_")]


def port(**changes: Any) -> ModuleType:
    """Return a right port, some of whose members are replaced, or left out where they are None."""
    module = ModuleType("a_port")
    members = {name: getattr(numpy_port, name) for name in numpy_port.__all__} | changes
    vars(module).update({name: member for name, member in members.items() if member is not None})
    return module


def refusal(module: ModuleType) -> str:
    with pytest.raises(PortError) as caught:
        check_port(module)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    return str(caught.value)


def test_a_right_port_is_returned() -> None:
    right = port()
    assert check_port(right) is right


@subjects("float64")
def test_each_backend_has_the_four_strategies(subject: Any) -> None:
    assert tuple(subject.port.GRADIENTS) == STRATEGIES


def test_the_members_are_those_of_the_design() -> None:
    forward = {"predict", "loss", "accuracy", "gradient"}
    assert set(MEMBERS) == forward | {"from_numpy", "to_numpy", "devices", "synchronize", "train_steps"}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_missing_function_is_named(member: str) -> None:
    assert f"`a_port.{member}` must be a function (" in refusal(port(**{member: None}))


@pytest.mark.parametrize("member", MEMBERS)
def test_a_function_that_is_none_is_named(member: str) -> None:
    message = refusal(port(**{member: "not a function"}))
    assert f"`a_port.{member}` must be a function (" in message
    assert "got 'not a function'" in message


@pytest.mark.parametrize("member", [name for name in MEMBERS if name != "devices"])  # which has no arguments
def test_a_wrong_signature_is_named(member: str) -> None:
    message = refusal(port(**{member: lambda wrong: None}))
    assert f"`a_port.{member}` must take (" in message
    assert "got (wrong)" in message


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda x, params, t: None, "(x, params, t)"),
        (lambda params, x: None, "(params, x)"),
        (lambda params, x, t, more: None, "(params, x, t, more)"),
        (lambda params, x, *, t: None, "(params, x, *, t)"),
        (lambda params, x, **t: None, "(params, x, **t)"),
        (max, "a function without a signature"),
    ],
)
def test_arguments_that_would_not_arrive_are_a_wrong_signature(function: Any, got: str) -> None:
    assert f"`a_port.loss` must take (params, x, t), got {got}." in refusal(port(loss=function))


@pytest.mark.parametrize(
    "function",
    [
        lambda params, x, t, *, more=None: None,
        lambda *args, **options: None,
        lambda params, *rest: None,
    ],
)
def test_a_port_may_take_more(function: Any) -> None:
    check_port(port(loss=function))


def test_keywords_have_no_order() -> None:
    check_port(port(from_numpy=lambda array, *, device, dtype: None))


@pytest.mark.parametrize(
    ("gradients", "got"),
    [(None, "None."), ({}, "[]."), ([1], "[1]."), ({"loop": max}, "['loop']."), (len, "<built")],
)
def test_gradients_that_are_none_are_named(gradients: Any, got: str) -> None:
    message = refusal(port(GRADIENTS=gradients))
    rule = "`a_port.GRADIENTS` must be a dict of functions for loop, batched, structured, collocated, got "
    assert message.startswith(rule + got)


def test_a_module_without_a_name_is_shown() -> None:
    assert refusal(SimpleNamespace()).startswith("`namespace().accuracy` must be a function ")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("function", "got"),
    [
        (1, "got 1"),
        (lambda params, x, t: None, "got (params, x, t)"),
        (lambda params, x, t, *, h: None, "got (params, x, t, *, h)"),
        (lambda params, x, t, *, memory=1: None, "got (params, x, t, *, memory=1)"),
        (lambda params, x, t, *, h, memory=1, entries=None: None, "got (params, x, t, *, h, memory=1, entries=None)"),
    ],
)
def test_a_wrong_gradient_is_named(strategy: str, function: Any, got: str) -> None:
    message = refusal(port(GRADIENTS={**numpy_port.GRADIENTS, strategy: function}))
    assert f"`a_port.GRADIENTS['{strategy}']` must " in message
    entries = ", entries=None" if strategy in ("loop", "batched") else ""
    assert f"(params, x, t, *, h=0.0001, memory=268435456{entries})" in message
    assert got in message


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_loop_and_batched_must_take_entries(strategy: str) -> None:
    module = port(GRADIENTS={**numpy_port.GRADIENTS, strategy: lambda params, x, t, *, h=1e-4, memory=1: None})
    if strategy in ("loop", "batched"):
        assert refusal(module).endswith("got (params, x, t, *, h=0.0001, memory=1).")
    else:
        check_port(module)


def test_training_must_have_a_default_h() -> None:
    def train_steps(params: Any, x: Any, t: Any, batches: Any, *, strategy: Any, learning_rate: Any, h: Any) -> None:
        pass

    assert "`a_port.train_steps` must take (" in refusal(port(train_steps=train_steps))


def test_training_by_a_function_is_a_wrong_signature() -> None:
    def train_steps(params: Any, x: Any, t: Any, batches: Any, *, gradient: Any, learning_rate: Any) -> None:
        pass

    message = refusal(port(train_steps=train_steps))
    assert "`a_port.train_steps` must take (params, x, t, batches, *, strategy, learning_rate, h=0.0001, mem" in message


def test_a_port_that_devices_can_share_has_one_function_more() -> None:
    assert not isinstance(numpy_port, Distributable)
    assert isinstance(port(distribute=lambda devices: None), Distributable)


def test_a_distributed_port_has_five_members_more() -> None:
    members = {"rank": 0, "subset": max, "sent": max, "barrier": max, "gather": max}
    assert isinstance(SimpleNamespace(**members), DistributedPort)
    for name in members:
        assert not isinstance(SimpleNamespace(**{n: m for n, m in members.items() if n != name}), DistributedPort)


@pytest.mark.parametrize("devices", [(), [], ["cpu"], "cpu", None, (0,)])
def test_devices_that_are_no_names_are_refused(devices: Any) -> None:
    message = refusal(port(devices=lambda: devices))
    assert message == f"`a_port.devices()` must return a tuple of names, got {devices!r}."
