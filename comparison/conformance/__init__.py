"""What every port must pass: tests for pytest, which `compare.py conform PORT` runs on one port.

Import this package only where pytest and hypothesis are installed.
"""
