"""Time what agrees, and say which backend to take."""
