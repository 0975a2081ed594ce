"""A fixture for the tests of what a checkpoint holds, and of how it is written."""

from pathlib import Path

import pytest

from saved_checkpoints import a_checkpoint, save_at


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_at(tmp_path / "run.ckpt", a_checkpoint())
    return tmp_path / "run.ckpt"
