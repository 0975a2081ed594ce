"""Mutate modules by mutmut, one after the other, and hold each against its own tests: `python tests/mutation/run.py`.

Prints the score of each module, the share of its mutants that its tests find, and those that survive. Exits with 1
where a score is below the one recorded in scores.json; `--record` writes the new ones there. Of a port's thousands of
mutants, each of which JAX compiles anew, only those are tried whose number ends in `--digit`: another tenth each night,
so that its score is compared with none.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCORES = Path(__file__).with_name("scores.json")
CONFORMANCE = "comparison/conformance/"
OF_EACH_PORT = [
    "comparison/conformance/test_ports",
    "ports/test_bad_input",
    "comparison/conformance/test_agreement",
    "comparison/conformance/test_symmetries",
    "comparison/conformance/test_descent",
    "comparison/conformance/test_memory",
]
MODULES = {  # and the tests that each is held against
    "reference/functions.py": ["reference/test_functions"],
    "reference/loss_difference.py": ["reference/test_loss_difference"],
    "reference/collocation.py": [
        "reference/test_collocation",
        "reference/test_plan_limits",
        "reference/test_plan_derivation",
        "reference/test_planned_training",
    ],
    "reference/numerical_gradient.py": [
        "reference/test_numerical_gradient",
        "reference/test_invariance",
        "comparison/conformance/test_memory",
        "reference/test_validation",
        "reference/test_options",
    ],
    "reference/two_layer_net.py": ["reference/test_two_layer_net"],
    "reference/segments.py": ["reference/test_segments"],
    "reference/descent.py": ["reference/test_descent"],
    "reference/training.py": ["reference/test_training", "comparison/conformance/test_training"],
    "reference/validation.py": [
        "reference/test_validation",
        "reference/test_options",
        "ports/test_bad_input",
        "ports/test_array_kinds",
        "reference/test_two_layer_net",
    ],
    "reference/reading.py": ["reference/test_idx", "reference/test_npz"],
    "reference/images.py": ["reference/test_npz", "reference/test_idx"],
    "reference/idx.py": ["reference/test_idx"],
    "reference/npz.py": ["reference/test_npz", "reference/test_params"],
    "reference/csv.py": ["reference/test_csv"],
    "reference/checkpoints.py": ["reference/test_checkpoints", "reference/test_checkpoint_writing"],
    "reference/params.py": ["reference/test_params"],
    "reference/datasets.py": ["reference/test_datasets", "reference/test_file_kinds"],
    "reference/downloads.py": ["reference/test_downloads"],
    "ports/protocol.py": ["ports/test_protocol"],
    "ports/registry.py": ["ports/test_loading", "ports/test_registry", "ports/test_places"],
    "ports/distributed.py": ["ports/test_distributed"],
    "comparison/agreement/bounds.py": ["comparison/test_bounds", "comparison/test_summation_orders"],
    "comparison/agreement/summation.py": ["comparison/test_summation", "comparison/test_summation_orders"],
    "comparison/agreement/comparison.py": ["comparison/test_comparison"],
    "comparison/agreement/cases.py": ["comparison/test_cases"],
    "comparison/agreement/drift.py": ["comparison/test_drift"],
    "comparison/timing/rounds.py": ["comparison/test_rounds"],
    "comparison/timing/recommendation.py": ["comparison/test_recommendation"],
    "comparison/timing/scaling.py": ["comparison/test_scaling"],
    "comparison/timing/workloads.py": ["comparison/test_workloads"],
    "comparison/report/step_study.py": ["comparison/test_step_study"],
} | {
    f"ports/{backend}_port/{file}.py": ["mutation/agree", f"ports/test_{backend}_port", *OF_EACH_PORT]
    for backend in ("torch", "jax")
    for file in ("runtime", "two_layer_net", "loss_difference", "numerical_gradient", "descent")
}
BACKENDS = {module: module.split("/")[1].removesuffix("_port") for module in MODULES if "_port/" in module}
MEMORY = 4 * 2**30
"""Bytes that a process may take, since a mutant may never end and fill them."""
SETTINGS = """
[tool.mutmut]
source_paths = ["reference", "ports", "comparison"]
only_mutate = {module}
also_copy = ["compare.py"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-n", "0", "-p", "no:cacheprovider", "-m", "", "-k", "{select}"]
process_isolation = "forkserver"  # JAX's and PyTorch's threads do not outlive a fork
timeout_constant = 3.0
"""


def main() -> int:
    """Mutate the modules that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="PATH", help="a module or a folder (default: all)")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--digit", default="0", choices=list("0123456789"), help="the tenth of a port's mutants to try")
    parser.add_argument("--record", action="store_true", help="record the scores")
    arguments = parser.parse_args()
    modules = [module for module in MODULES if module.startswith(tuple(arguments.modules or [""]))]
    if not modules:
        parser.error(f"PATH must be one of {', '.join(MODULES)}, got {', '.join(arguments.modules)}.")
    recorded = json.loads(SCORES.read_text())
    scores = {module: mutate(module, arguments.digit, arguments.workers) for module in modules}
    if arguments.record:
        whole = {module: score for module, score in scores.items() if module not in BACKENDS}
        SCORES.write_text(json.dumps(recorded | whole, indent=1, sort_keys=True) + "\n")
        return 0
    worse = [module for module, score in scores.items() if score < recorded.get(module, 0)]
    for module in worse:
        print(f"{module}: {scores[module]} is below the recorded score of {recorded[module]}")
    return 1 if worse else 0


def mutate(module: str, digit: str, workers: int) -> float:
    """Print the score of a module and its survivors, and return the score to four digits."""
    some = [f"*__mutmut_*{digit}"] if module in BACKENDS else []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        prepare(copy, module)
        mutmut(copy, "run", "--max-children", str(workers), *some)
        results = re.findall(r"^ +(\S+): (.*)$", mutmut(copy, "results", "--all", "true"), re.MULTILINE)
        tried = [(name, status) for name, status in results if status != "not checked"]
        survivors = [(name, mutmut(copy, "show", name)) for name, status in tried if status in ("survived", "no tests")]
    survivors = [(name, diff) for name, diff in survivors if not is_guard(*changed(name, diff)[1:])]
    score = round(1 - len(survivors) / max(1, len(tried)), 4)
    print(f"{module}: {score} of {len(tried)} mutants found", flush=True)
    for name, diff in survivors:
        function, *lines = changed(name, diff)
        print(function, *lines, sep="\n    ", flush=True)
    return score


def prepare(copy: Path, module: str) -> None:
    """Copy the project, with the settings for one module."""
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    source = re.sub(
        r"^(class .*Protocol\):)$", r"\1  # pragma: no mutate block", (copy / module).read_text(), flags=re.M
    )
    if module not in BACKENDS:
        source = source.replace("@cache\n", "")  # mutmut leaves alone what is decorated
    (copy / module).write_text(source)
    tests = [f"{name}.py" if name.startswith(CONFORMANCE) else f"tests/{name}.py" for name in MODULES[module]]
    select = BACKENDS.get(module, "not jax and not torch") + " and not points_at_the_caller"  # mutmut adds frames
    with (copy / "pyproject.toml").open("a") as file:
        file.write(SETTINGS.format(module=json.dumps([module]), tests=json.dumps(tests), select=select))


def mutmut(copy: Path, *arguments: str) -> str:
    """Run a command of mutmut and return what it prints."""
    environment = os.environ | {"HYPOTHESIS_PROFILE": "mutation", "OMP_NUM_THREADS": "1"}
    environment["FDNET_REQUIRE"] = ",".join({*BACKENDS.values()})  # a mutant that makes a port "not run" is no survivor
    program = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    done = subprocess.run(program, cwd=copy, env=environment, preexec_fn=limit, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"mutmut {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def limit() -> None:
    """Limit the memory of a process and of those it starts."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def is_guard(*differing: str) -> bool:
    """Whether all that a mutant lacks is `strict=True`, which guards against what does not happen."""
    before, after = ("".join(line[2:] for line in differing if line[0] == sign) for sign in "-+")
    return re.sub(r", *(strict=\w+)?(?=\))", "", before) == re.sub(r", *(strict=\w+)?(?=\))", "", after)


def changed(name: str, diff: str) -> tuple[str, ...]:
    """Return the function of a mutant, and the lines of its diff that differ, without their indentation."""
    function = name.rpartition("__mutmut_")[0].replace(".xǁ", ".").replace(".x_", ".").replace("ǁ", ".")
    lines = re.findall(r"^([-+]) *(.*)$", diff.partition("\n@@")[2], re.MULTILINE)
    return function, *(f"{sign} {line}" for sign, line in lines)


if __name__ == "__main__":
    sys.exit(main())
