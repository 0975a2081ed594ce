"""`compare.py predict`: how a trained net does on a data set, on any backend."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, CRASHED, DISAGREES, argument_types, processes
from comparison.commands.options import DataOptions, OutputOptions, add_data, add_output, add_selection, new_command
from comparison.commands.output import make_console, write_json
from comparison.commands.subjects import load_data, load_subjects

if TYPE_CHECKING:
    import numpy as np

    from comparison.agreement.comparison import Subject
    from comparison.agreement.predictions import Predictions
    from reference.two_layer_net import Params


@dataclass(frozen=True, kw_only=True)
class PredictOptions(OutputOptions, DataOptions):
    """The options of `predict`."""

    params: str
    part: str


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        PredictOptions,
        derive=_derive,
        help="the accuracy and the confusion matrix of a trained net",
        description="Let a net that `train --save` wrote predict the test set (or, with --part train, what it was "
        "trained on) on each backend: accuracy, confusion matrix, and whether all predict the same.",
        examples=(
            ("predict --params net.npz", "the digits' test set"),
            ("predict --params net.npz --data mnist --backend all", "MNIST's, on every backend"),
        ),
    )
    add = parser.add_argument
    params = "the arrays W1, b1, W2 and b2"
    add("--params", metavar="FILE.npz", type=argument_types.name, required=True, help=params)
    add_selection(parser, backend="numpy", dtype=None)
    add_data(parser)
    add("--part", choices=("test", "train"), default="test", help="the part of the data set")
    add("--seed", type=int, default=0, help="seed of the data set random")
    add_output(parser)


def _derive(arguments: argparse.Namespace) -> dict[str, object]:
    return {"dtype": arguments.dtype or ()}  # the file's, once it has been read


def run(options: PredictOptions) -> int:
    """Predict, print, and return the exit code."""
    from reference.params import load_params

    params = load_params(options.params)
    options = replace(options, dtype=options.dtype or (str(params.W1.dtype),))
    data = load_data(options, quiet=options.quiet)
    x, t = (data.x_test, data.t_test) if options.part == "test" else (data.x_train, data.t_train)
    _check_fits(options, params, x, t)
    processes.check_same("data and parameters", (*data, *params))
    subjects, not_run = load_subjects(options)
    predictions, crashed = _predict_all(subjects, params, x, t)
    outputs = len(params.b2)
    if options.prints:
        _print(options, predictions, t, outputs)
        for row in (*not_run, *crashed):
            print(f"{row['backend']}: {'crashed' if row in crashed else 'not run'}: {row['reason']}")
    if options.json:
        answers = [_as_json(prediction, t, outputs) for prediction in predictions]
        write_json(options.json, "predict", options, {"answers": answers, "not_run": not_run, "crashed": crashed})
    return CRASHED if crashed else AGREES if all(p.agrees for p in predictions) else DISAGREES


def _check_fits(options: PredictOptions, params: Params, x: np.ndarray, t: np.ndarray) -> None:
    inputs, outputs = len(params.W1), len(params.b2)
    if x.shape[1] != inputs:
        raise ValueError(f"`--data` must have {inputs} inputs to fit {options.params}, got {x.shape[1]}.")
    if t.max() >= outputs:
        raise ValueError(f"`--data` must have {outputs} classes at most to fit {options.params}, got {t.max() + 1}.")


def _predict_all(
    subjects: list[Subject], params: Params, x: np.ndarray, t: np.ndarray
) -> tuple[list[Predictions], list[dict[str, str]]]:
    from comparison.agreement.predictions import predict_classes
    from ports.registry import describe_error

    predictions, crashed = [], []
    for subject in subjects:
        try:
            predictions.append(predict_classes(subject, params, x, t))
        except BaseException as error:  # a port may fail in any way: it is reported, and the exit code says so
            if processes.ends_all(error):
                raise
            reason = describe_error(error, subject.source)
            crashed.append({"backend": subject.name, "dtype": subject.dtype, "reason": reason})
    return predictions, crashed


def _print(options: PredictOptions, predictions: list[Predictions], t: np.ndarray, outputs: int) -> None:
    from comparison.report.agreement_tables import confusion_table

    console = make_console()
    same = [(p.classes == predictions[0].classes).all() for p in predictions]
    for n, (prediction, is_same) in enumerate(zip(predictions, same, strict=True)):
        console.print(_sentence(options, prediction, len(t)))
        if n == 0 or not is_same:
            console.print(confusion_table(prediction.confusion(t, outputs)))
    if len(predictions) > 1 and all(same):
        console.print("All give the same answers.")


def _sentence(options: PredictOptions, prediction: Predictions, samples: int) -> str:
    name = f"{prediction.subject.name} {prediction.subject.dtype}"
    right = f"{round(prediction.accuracy * samples):,} of {samples:,} right, accuracy {prediction.accuracy:.4f}"
    number = prediction.differing
    differing = f"; {number} predicted otherwise than by the float64 reference" if number else ""
    verdict = "" if prediction.agrees else f", where rounding can change {prediction.may_differ}: DISAGREES"
    return f"{name}: {options.data} {options.part}: {right}{differing}{verdict}."


def _as_json(prediction: Predictions, t: np.ndarray, outputs: int) -> dict[str, Any]:
    subject = prediction.subject
    return {
        "backend": subject.name,
        "dtype": subject.dtype,
        "device": subject.device,
        "accuracy": prediction.accuracy,
        "differing": prediction.differing,
        "may_differ": prediction.may_differ,
        "agrees": prediction.agrees,
        "confusion": prediction.confusion(t, outputs).tolist(),
    }
