"""Hold a port to the float64 reference, within bounds derived from rounding errors."""
