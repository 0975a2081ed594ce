"""The commands of compare.py, one module each; a module has `add(commands)` and `run(options)`.

They import only the standard library until they run, so that --help answers at once.
"""

AGREES, DISAGREES, BAD_INPUT, CRASHED, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141
"""Exit codes."""
EXIT_CODES = (
    "exit codes: 0 all agree, 1 something disagrees or a training diverged, 2 bad input or nothing to compare, "
    "3 a backend crashed, 130 interrupted, 141 nobody reads the output any longer"
)
