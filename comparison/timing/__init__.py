"""Time what agrees, and advise which backend to take."""
