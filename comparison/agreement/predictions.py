"""Compare the classes that a backend predicts with the float64 reference's."""

from typing import NamedTuple

import numpy as np

from comparison.agreement.bounds import Bounds, Problem
from comparison.agreement.comparison import Subject, on_device
from reference.two_layer_net import Params, predict


class Predictions(NamedTuple):
    """The classes that a backend predicts, and how they compare with the reference's."""

    subject: Subject
    classes: np.ndarray  # (N,)
    accuracy: float
    differing: int  # samples that the reference predicts differently
    may_differ: int  # samples whose prediction rounding can change

    @property
    def agrees(self) -> bool:
        """Whether rounding can explain the predictions that differ."""
        return self.differing <= self.may_differ

    def confusion(self, t: np.ndarray, outputs: int) -> np.ndarray:
        """Count how often each class (row) was predicted as each class (column), (O, O)."""
        return np.bincount(t * outputs + self.classes, minlength=outputs * outputs).reshape(outputs, outputs)


def predict_classes(subject: Subject, params: Params, x: np.ndarray, t: np.ndarray) -> Predictions:
    """Predict the classes of all samples on a backend, and by the reference at the same numbers."""
    problem = Problem(params, x, t)
    net, inputs = on_device(subject, problem)
    classes = subject.port.to_numpy(subject.port.predict(net, inputs)).argmax(axis=1)
    exact = problem.rounded(subject.dtype)
    expected = predict(exact.params, exact.x).argmax(axis=1)
    return Predictions(
        subject,
        classes,
        accuracy=float((classes == t).mean()),
        differing=int((classes != expected).sum()),
        may_differ=round(len(t) * Bounds(exact, subject.dtype).accuracy),
    )
