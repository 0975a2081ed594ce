"""The two-layer net of chapter 4.5 of *Deep Learning from Scratch* in NumPy: what every port is held to."""
