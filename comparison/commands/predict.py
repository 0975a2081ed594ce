"""`compare.py predict`: how a trained net does on a data set, on any backend."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from comparison.commands import AGREES, CRASHED, DISAGREES
from comparison.commands import processes as ranks
from comparison.commands.options import add_output, add_subjects, new_command, settings, subjects
from comparison.commands.output import console, where, write_json

if TYPE_CHECKING:
    import numpy as np

    from comparison.agreement.comparison import Subject
    from reference.two_layer_net import Params


class Answers(NamedTuple):
    """The classes that a backend predicts, (N,)."""

    subject: Subject
    classes: np.ndarray
    accuracy: float
    turned: int  # samples that the float64 reference predicts otherwise
    may_turn: int  # samples whose prediction rounding can turn

    @property
    def agrees(self) -> bool:
        """Whether rounding can be why predictions differ."""
        return self.turned <= self.may_turn


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        help="the accuracy and the confusion matrix of a trained net",
        description="Let a net that `train --save` wrote predict the test set (or, with --part train, what it was "
        "trained on) on each backend: accuracy, confusion matrix, and whether all give the same answers.",
    )
    add = parser.add_argument
    add("--params", metavar="FILE.npz", required=True, help="the arrays W1, b1, W2 and b2")
    add_subjects(parser, backend="numpy", dtype=None)  # the file's
    known = "digits, mnist, fashion-mnist, random, or a folder or npz file"
    add("--data", metavar="NAME|PATH", default="digits", help=known)
    add("--part", choices=("test", "train"), default="test", help="the part of the data set")
    add("--seed", type=int, default=0, help="seed of the data set random")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, print, and return the exit code."""
    from reference.datasets import load
    from reference.params import load_params

    params = load_params(args.params)
    args.dtype = args.dtype or (str(params.W1.dtype),)
    data = load(args.data, seed=args.seed)
    x, t = (data.x_test, data.t_test) if args.part == "test" else (data.x_train, data.t_train)
    _check_fits(args, params, x, t)
    ranks.check_same("data and parameters", (*data, *params))
    found, not_run = subjects(args)
    answers, crashed = _answer_all(found, params, x, t)
    if not args.quiet and args.json != "-":
        _print(args, answers, t, len(params.b2))
        for row in (*not_run, *crashed):
            print(f"{row['backend']}: {'crashed' if row in crashed else 'not run'}: {row['reason']}")
    if args.json:
        results = [_as_json(each, t, len(params.b2)) for each in answers]
        missing = {"not_run": not_run, "crashed": crashed}
        write_json(args.json, {"command": "predict", "settings": settings(args), "answers": results, **missing})
    return CRASHED if crashed else AGREES if all(each.agrees for each in answers) else DISAGREES


def _check_fits(args: argparse.Namespace, params: Params, x: np.ndarray, t: np.ndarray) -> None:
    if x.shape[1] != len(params.W1):
        raise ValueError(f"`--data` must have {len(params.W1)} inputs to fit {args.params}, got {x.shape[1]}.")
    if t.max() >= len(params.b2):
        raise ValueError(
            f"`--data` must have {len(params.b2)} classes at most to fit {args.params}, got {t.max() + 1}."
        )


def _answer_all(
    found: list[Subject], params: Params, x: np.ndarray, t: np.ndarray
) -> tuple[list[Answers], list[dict[str, str]]]:
    answers, crashed = [], []
    for subject in found:
        try:
            answers.append(_answer(subject, params, x, t))
        except ConnectionAbortedError:  # other ranks wait no more
            raise
        except Exception as error:  # a port may fail in any way: it is reported, and the exit code says so
            crashed.append({"backend": subject.name, "dtype": subject.dtype, "reason": where(error)})
    return answers, crashed


def _answer(subject: Subject, params: Params, x: np.ndarray, t: np.ndarray) -> Answers:
    from comparison.agreement.bounds import Problem, accuracy_bound
    from comparison.agreement.comparison import on_device
    from reference.two_layer_net import predict

    port, problem = subject.port, Problem(params, x, t)
    net, inputs = on_device(subject, problem)
    classes = port.to_numpy(port.predict(net, inputs)).argmax(axis=1)
    exact = problem.rounded(subject.dtype)
    expected = predict(exact.params, exact.x).argmax(axis=1)
    return Answers(
        subject,
        classes,
        accuracy=float((classes == t).mean()),
        turned=int((classes != expected).sum()),
        may_turn=round(len(t) * accuracy_bound(exact, subject.dtype)),
    )


def _confusion(classes: np.ndarray, t: np.ndarray, outputs: int) -> np.ndarray:
    """Return how often each class (row) was taken for each (column), (O, O)."""
    import numpy as np

    return np.bincount(t * outputs + classes, minlength=outputs * outputs).reshape(outputs, outputs)


def _print(args: argparse.Namespace, answers: list[Answers], t: np.ndarray, outputs: int) -> None:
    from comparison.report.agreement_tables import confusion_table

    out = console()
    for n, each in enumerate(answers):
        name = f"{each.subject.name} {each.subject.dtype}"
        share = f"{round(each.accuracy * len(t)):,} of {len(t):,} right, accuracy {each.accuracy:.4f}"
        others = f"; {each.turned} predicted otherwise than by the float64 reference" if each.turned else ""
        verdict = "" if each.agrees else f", where rounding can turn {each.may_turn}: DISAGREES"
        out.print(f"{name}: {args.data} {args.part}: {share}{others}{verdict}.", markup=False)
        if n == 0 or (each.classes != answers[0].classes).any():
            out.print(confusion_table(_confusion(each.classes, t, outputs)))
    if len(answers) > 1 and all((each.classes == answers[0].classes).all() for each in answers):
        out.print("All give the same answers.")


def _as_json(answers: Answers, t: np.ndarray, outputs: int) -> dict[str, Any]:
    subject = answers.subject
    return {
        "backend": subject.name,
        "dtype": subject.dtype,
        "device": subject.device,
        "accuracy": answers.accuracy,
        "turned": answers.turned,
        "may_turn": answers.may_turn,
        "agrees": answers.agrees,
        "confusion": _confusion(answers.classes, t, outputs).tolist(),
    }
