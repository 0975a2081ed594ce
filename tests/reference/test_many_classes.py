"""The commands follow the data: a net has an output for each of 62 classes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compare
from comparison.agreement.comparison import random_problem
from data_files import KINDS, LETTERS, saved
from reference.params import load_params

PROBLEM = ["--hidden", "3", "--batch", "8", "--quiet"]


@pytest.fixture
def letters(tmp_path: Path) -> str:
    """Write the 62 classes with few inputs, so that every strategy is fast."""
    x = LETTERS[:, :3, :3]
    arrays = {"x_train": x[:248], "y_train": KINDS[:248], "x_test": x[248:], "y_test": KINDS[248:]}
    return str(saved(tmp_path, **arrays))


def results_of(*arguments: str, into: Path) -> dict[str, Any]:
    assert compare.main([*arguments, "--json", str(into)]) == 0
    return json.loads(into.read_text())


def test_a_port_agrees_on_62_classes(letters: str, tmp_path: Path) -> None:
    one = ["--backend", "numpy", "--dtype", "float64", "--strategy", "collocated"]
    results = results_of("agree", "--data", letters, *one, *PROBLEM, into=tmp_path / "agree.json")
    rows = [row for row in results["agreement"] if row["problem"] == "data"]
    assert {row["entries"] for row in rows if row["quantity"] == "predictions"} == {8 * 62}


def test_a_net_is_trained_and_predicts_62_classes(letters: str, tmp_path: Path) -> None:
    net = tmp_path / "net.npz"
    run = ["--backend", "numpy", "--iterations", "5", *PROBLEM]
    results_of("train", "--data", letters, *run, "--save", str(net), into=tmp_path / "train.json")
    params = load_params(net)
    assert (params.W1.shape, params.W2.shape, params.b2.shape) == ((9, 3), (3, 62), (62,))
    predict = ["predict", "--data", letters, "--params", str(net), "--backend", "numpy", "--quiet"]
    answers = results_of(*predict, into=tmp_path / "predict.json")
    assert len(np.shape(answers["answers"])) == 1


def test_the_speed_is_that_of_a_net_with_62_outputs(letters: str, tmp_path: Path) -> None:
    speed = ["speed", "--data", letters, "--backend", "numpy", "--dtype", "float64", "--budget", "0.2"]
    results = results_of(*speed, "--strategy", "collocated", *PROBLEM, into=tmp_path / "speed.json")
    assert [row["sizes"]["outputs"] for row in results["speed"]] == [62]


def test_a_random_problem_has_an_output_for_each_class() -> None:
    x, t = np.ones((5, 2)), np.array([0, 61, 3, 4, 5])
    assert random_problem(x, t, hidden=3, samples=5, seed=0).params.W2.shape == (3, 62)
    assert random_problem(x, t, hidden=3, samples=5, seed=0, outputs=70).params.W2.shape == (3, 70)
