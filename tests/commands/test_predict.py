"""compare.py predict, as its users call it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from comparison import commands
from reference import datasets
from reference.params import load_params
from reference.two_layer_net import accuracy
from training_commands import SMALL, main


def test_it_learns_and_predict_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.npz"
    assert main(*SMALL[:-1], 600, "--save", path, "--json", tmp_path / "train.json", "--quiet") == 0
    [trained] = json.loads((tmp_path / "train.json").read_text())["runs"]
    data = datasets.load("random")
    right = accuracy(load_params(path), data.x_test, data.t_test)
    assert right > 0.9
    assert trained["accuracies"][-1]["test"] == right
    assert main("predict", "--params", path, "--data", "random", "--backend", "numpy,torch,jax", "--json") == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [answer["backend"] for answer in answers] == ["numpy", "torch", "jax"]
    for answer in answers:
        counts = np.array(answer["confusion"])
        assert answer["accuracy"] == right
        assert counts.trace() == round(right * 200)
        np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(data.t_test, minlength=10))
        assert answer["agrees"]


def test_predict_prints_a_confusion_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.npz"
    assert main(*SMALL, "--dtype", "float32", "--save", path, "--quiet") == 0
    assert main("predict", "--params", path, "--data", "random", "--backend", "numpy,torch", "--part", "train") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"numpy float32: random train: [\d,]+ of 1,000 right, accuracy 0\.\d{4}\.", lines[0])
    rows = [line.split() for line in lines[2:13]]
    assert rows[0] == [str(n) for n in range(10)]
    assert [row[0] for row in rows[1:]] == rows[0]
    assert sum(int(cell) for row in rows[1:] for cell in row[1:] if cell != ".") == 1000
    assert lines[-1] == "All give the same answers."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--params", ""), r"argument --params: must not be empty, got ''\."),
        (("--params", "none.npz"), r"none\.npz must be a file, got none\."),
        (("--params", "NET", "--data", "digits", "--device", "tpu"), r"got 'tpu'"),
        (("--params", "NARROW"), r"`--data` must have 3 inputs to fit .*, got 64\."),
        (("--params", "FEW"), r"`--data` must have 2 classes at most to fit .*, got 10\."),
        (("--params", "NET", "--data", "no/such"), "no/such"),
        ((), "the following arguments are required: --params"),
    ],
)
def test_predict_refuses_in_a_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from reference.params import save_params
    from reference.two_layer_net import init

    for name, sizes in {"NET": (64, 5, 10), "NARROW": (3, 5, 10), "FEW": (64, 5, 2)}.items():
        save_params(tmp_path / name, init(*sizes, seed=0))
    paths = [str(tmp_path / word) if word.isupper() else word for word in arguments]
    assert main("predict", *paths) == commands.BAD_INPUT
    output = capsys.readouterr()
    assert re.search(sentence, output.err), output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_inputs_and_classes_are_those_of_random(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.npz"
    sizes = ("--inputs", 9, "--classes", 62)
    assert main(*SMALL, *sizes, "--save", path, "--quiet") == 0
    assert load_params(path).W1.shape == (9, 5)
    assert load_params(path).b2.shape == (62,)
    assert main("predict", "--params", path, "--data", "random", *sizes, "--json") == 0
    assert np.array(json.loads(capsys.readouterr().out)["answers"][0]["confusion"]).shape == (62, 62)
    assert main("predict", "--params", path, "--inputs", 9) == commands.BAD_INPUT
    assert "`--inputs` must be left out with every data set but random, got 9." in capsys.readouterr().err
