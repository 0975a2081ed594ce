"""A checkpoint with something in each of its fields, and a way to save it at a path."""

from pathlib import Path

import numpy as np

from reference.checkpoints import Checkpoint, save
from reference.files import ExclusiveFile
from reference.training import begin
from reference.two_layer_net import init


def a_checkpoint(dtype: str = "float32") -> Checkpoint:
    start = begin(init(5, 4, 3, seed=0, dtype=dtype), seed=1)
    now = start._replace(iteration=7, losses=np.linspace(2, 1, 7), accuracies=np.array([[0, 0.1, 0.2], [5, 0.3, 0.4]]))
    return Checkpoint(now, {"backend": "numpy", "rate": 0.1, "seed": 0}, {"numpy": "2.1", "threads": None})


def save_at(path: Path, checkpoint: Checkpoint) -> None:
    with ExclusiveFile(path) as file:
        save(file, checkpoint)
