"""The console command `fdnet`, which is compare.py's own main, whatever else answers to the names of its packages.

The packages of a checkout have plain names, and a user's folder or environment may have others of these names. While
this module is imported, they are found beside it and nowhere else.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent
NAMES = ("compare", "comparison", "ports", "reference")
BAD_INPUT = 2


class _OwnPackages:
    """A finder of modules that comes before all others."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(HOME)]) if name in NAMES else None


sys.meta_path.insert(0, _OwnPackages)


def main() -> int:
    """Run compare.py's main; return its exit code, or 2 where another package has been imported under our names."""
    for name in NAMES:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and HOME not in Path(file).resolve().parents:
            print(f"fdnet: `{name}` must be fdnet's own package, but {file} has been imported.", file=sys.stderr)
            return BAD_INPUT
    return int(importlib.import_module("compare").main())


if __name__ == "__main__":
    sys.exit(main())
