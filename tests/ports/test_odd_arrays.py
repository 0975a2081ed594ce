"""Arrays that only PyTorch or JAX has, given to a port or to the class: the right answer, or one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject
from comparison.conformance.calls import FUNCTIONS, good_call, on_backend, prepare
from comparison.conformance.problems import loaded

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def nested(a: Any, layout: Any) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor(list(a), layout=layout)


def dual(a: Any) -> Any:
    import torch

    return torch.autograd.forward_ad.make_dual(a, torch.ones_like(a))


def masked(a: Any) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.masked.masked_tensor(a, a > 0)


def freed(a: Any) -> Any:
    copy = a.clone()
    copy.untyped_storage().resize_(0)
    return copy


PLAIN_NO_MORE = ["sparse COO", "sparse CSR", "sparse BSR", "sparse CSC", "nested", "jagged", "dual"]
PLAIN_NO_MORE += ["masked", "uninitialized", "freed", "meta"]


def torch_arrays() -> dict[str, tuple[Callable[[Any], Any], str]]:
    import torch

    return {
        "sparse COO": (lambda a: a.to_sparse(), "must be a dense tensor, got a sparse_coo one."),
        "sparse CSR": (lambda a: a.to_sparse_csr(), "must be a dense tensor, got a sparse_csr one."),
        "sparse BSR": (lambda a: a.to_sparse_bsr((1, 1)), "must be a dense tensor, got a sparse_bsr one."),
        "sparse CSC": (lambda a: a.to_sparse_csc(), "must be a dense tensor, got a sparse_csc one."),
        "nested": (lambda a: nested(a, torch.strided), "must be a dense tensor, got a nested one."),
        "jagged": (lambda a: nested(a, torch.jagged), "must be a plain torch.Tensor, got a NestedTensor."),
        "masked": (masked, "must be a plain torch.Tensor, got a MaskedTensor."),
        "uninitialized": (
            lambda a: torch.nn.UninitializedParameter(),
            "must be a plain torch.Tensor, got a UninitializedParameter.",
        ),
        "freed": (freed, "must hold numbers, got a tensor on cpu whose storage holds none."),
        "meta": (lambda a: a.to("meta"), "must hold numbers, got a tensor on meta whose storage holds none."),
        "dual": (dual, "must carry no tangent, got a dual tensor of forward-mode AD."),
    }


@pytest.mark.filterwarnings("ignore:Sparse (CSR|BSR|CSC) tensor support is in beta:UserWarning")
@pytest.mark.parametrize("kind", PLAIN_NO_MORE)
@pytest.mark.parametrize("name", ["x", "W1"])
def test_a_tensor_that_is_not_plain_is_refused(kind: str, name: str) -> None:
    subject = Subject("torch", loaded("torch"), "float64", "cpu")
    import torch

    change, sentence = torch_arrays()[kind]
    call = on_backend(subject, good_call())
    with torch.autograd.forward_ad.dual_level():
        if name == "x":
            changed = call._replace(x=change(call.x))
        else:
            changed = call._replace(params=call.params._replace(W1=change(call.params.W1)))
        for function in FUNCTIONS:
            called, arguments, options = prepare(subject, changed, function)
            with pytest.raises(ValueError, match=f"^`{name}` ") as caught:
                called(*arguments, **options)
            assert str(caught.value) == f"`{name}` {sentence}"
        with pytest.raises(ValueError, match=r"^`array` must "):
            subject.port.to_numpy(change(call.x))


def test_what_numpy_cannot_hold_is_refused() -> None:
    port = loaded("torch")
    with pytest.raises(ValueError, match=r"^`array` must be a torch.Tensor, got None\.$"):
        port.to_numpy(None)
    with pytest.raises(ValueError, match=r"^`array` must have a dtype that NumPy has, got bfloat16\.$"):
        port.to_numpy(port.from_numpy(np.ones(2), dtype="float32", device="cpu").bfloat16())


def bits(result: Any) -> list[bytes]:
    return [b for part in result for b in bits(part)] if isinstance(result, tuple) else [result.numpy().tobytes()]


RIGHT: dict[str, Callable[[Any, Any], Any]] = {
    "neg-bit view": lambda torch, a: torch._neg_view(-a),
    "imaginary part of a conjugate": lambda torch, a: torch.complex(a, -a).conj().imag,
    "requires grad": lambda torch, a: a.clone().requires_grad_(),
    "result of a graph": lambda torch, a: a.clone().requires_grad_() * 1,
    "parameter": lambda torch, a: torch.nn.Parameter(a),
    "inference tensor": lambda torch, a: inference(torch, a),
    "expanded": lambda torch, a: torch.stack((a, a))[:1].expand(3, *a.shape)[1],
}


def inference(torch: Any, a: Any) -> Any:
    with torch.inference_mode():
        return a.clone()


@pytest.mark.parametrize("kind", RIGHT)
def test_a_tensor_of_another_kind_gives_the_same_bits(kind: str) -> None:
    subject = Subject("torch", loaded("torch"), "float64", "cpu")
    import torch

    call = on_backend(subject, good_call())
    odd = call._replace(
        params=type(call.params)(*(RIGHT[kind](torch, p) for p in call.params)), x=RIGHT[kind](torch, call.x)
    )
    assert subject.port.to_numpy(odd.x).tobytes() == subject.port.to_numpy(call.x).tobytes()
    for function in FUNCTIONS:
        called, arguments, options = prepare(subject, call, function)
        expected = called(*arguments, **options)
        called, arguments, options = prepare(subject, odd, function)
        result = called(*arguments, **options)
        assert bits(result) == bits(expected), function


@pytest.mark.parametrize("transform", ["vmap", "grad", "jvp", "vjp"])
def test_a_tensor_of_a_transform_of_torch_is_refused(transform: str) -> None:
    subject = Subject("torch", loaded("torch"), "float64", "cpu")
    import torch

    call = on_backend(subject, good_call())

    def loss(x: Any) -> Any:
        return subject.port.loss(call.params, x, call.t)

    with pytest.raises(ValueError, match=r"^`x` must hold numbers, got a tensor of a transform of torch.func.*\.$"):
        {
            "vmap": lambda: torch.func.vmap(loss)(call.x[None]),
            "grad": lambda: torch.func.grad(loss)(call.x),
            "jvp": lambda: torch.func.jvp(loss, (call.x,), (call.x,)),
            "vjp": lambda: torch.func.vjp(loss, call.x),
        }[transform]()


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap", "checkpoint", "eval_shape"])
@pytest.mark.parametrize("name", ["x", "b2"])
def test_a_tracer_of_jax_is_refused(transform: str, name: str) -> None:
    subject = Subject("jax", loaded("jax"), "float64", "cpu")
    import jax

    call = on_backend(subject, good_call())
    array = call.x if name == "x" else call.params.b2

    def with_traced(function: str) -> Callable[[Any], Any]:
        def traced(a: Any) -> Any:
            changed = call._replace(x=a) if name == "x" else call._replace(params=call.params._replace(b2=a))
            called, arguments, options = prepare(subject, changed, function)
            return called(*arguments, **options)

        return traced

    for function in FUNCTIONS:
        with jax.enable_x64(True), pytest.raises(ValueError, match=rf"^`{name}` must hold numbers, got a tracer of"):
            {
                "eval_shape": lambda f: jax.eval_shape(f, array),
                "vmap": lambda f: jax.vmap(f)(array[None]),
            }.get(transform, lambda f: getattr(jax, transform)(f)(array))(with_traced(function))


def test_a_deleted_array_of_jax_is_refused() -> None:
    subject = Subject("jax", loaded("jax"), "float64", "cpu")
    call = on_backend(subject, good_call())
    call.x.delete()
    with pytest.raises(ValueError, match=r"^`x` must hold numbers, got an array that was deleted or donated\.$"):
        subject.port.predict(call.params, call.x)


def answer(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return the result of a call, or the sentence of its ValueError."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error)


LABELS: dict[str, Callable[[Any, Any], Any]] = {
    "sparse": lambda torch, t: torch.eye(2)[t].to_sparse(),
    "nested": lambda torch, t: nested(torch.eye(2)[t], torch.strided),
    "bfloat16": lambda torch, t: t.to(torch.bfloat16),
    "neg-bit view": lambda torch, t: torch._neg_view(-t.double()),
    "meta": lambda torch, t: t.to("meta"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_another_kind_are_right_or_refused(kind: str) -> None:
    subject = Subject("torch", loaded("torch"), "float64", "cpu")
    import torch

    call = on_backend(subject, good_call())
    t = LABELS[kind](torch, torch.from_numpy(np.array(call.t)))
    got, sentence = answer(lambda: subject.port.loss(call.params, call.x, t))
    assert sentence.startswith("`t` must ") or got == subject.port.loss(call.params, call.x, call.t)
    assert "\n" not in sentence


CLASS: dict[str, Callable[[Any, Any], Any]] = {
    "bfloat16": lambda torch, x: x.bfloat16(),
    "sparse": lambda torch, x: x.to_sparse(),
    "sparse CSR": lambda torch, x: x.to_sparse_csr(),
    "nested": lambda torch, x: nested(x, torch.strided),
    "requires grad": lambda torch, x: x.clone().requires_grad_(),
    "neg-bit view": lambda torch, x: torch._neg_view(-x),
    "meta": lambda torch, x: x.to("meta"),
    "quantized": lambda torch, x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("kind", CLASS)
def test_the_class_answers_right_or_in_one_sentence(kind: str, backend: str) -> None:
    torch = pytest.importorskip("torch", reason="torch not run: it is not installed")
    loaded(backend)
    net, x = ports.TwoLayerNet(5, 3, 2, seed=0, backend=backend), torch.from_numpy(good_call().x)
    got, sentence = answer(lambda: net.predict(CLASS[kind](torch, x)))
    assert sentence.startswith("`x` must ") or np.array_equal(got, net.predict(x.numpy()))
    assert "\n" not in sentence
