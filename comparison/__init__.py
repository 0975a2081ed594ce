"""What `compare.py` does: hold ports to the reference, time them, and report."""

import sys
from pathlib import Path

PROGRAM = "fdnet" if Path(sys.argv[0]).stem == "fdnet" else "compare.py"
"""What the command line was started as."""
