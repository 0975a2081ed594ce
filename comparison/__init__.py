"""What `compare.py` does: hold ports to the reference, time them, and report."""
