"""Profiles, the backends that must be there, and a cache that spares JAX from compiling twice."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import ports
from ports.agreement import Subject

# Compiling takes what it takes: no deadline.
settings.register_profile("dev", max_examples=10, deadline=None)
settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads spin where cores are shared
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a line for each program that comes from the cache
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"fdnet-jax-cache-{os.getuid()}"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Subject:
    """Return the backend and dtype of an indirect parameter, or skip with the reason that it can't run here."""
    backend, dtype = request.param
    try:
        return Subject(backend, ports.load(backend), dtype, "cpu")
    except ports.NotRunError as reason:
        if backend in os.environ.get("FDNET_REQUIRE", "").split(","):
            pytest.fail(f"{backend} is required by FDNET_REQUIRE but did not run: {reason}")
        pytest.skip(f"{backend} not run: {reason}")
