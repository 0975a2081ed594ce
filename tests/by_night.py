"""Whether the tests run under the nightly profile, which tries what takes hours."""

import os

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
