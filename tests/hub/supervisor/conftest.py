"""The engine that the supervisor's tests run on: the real one, in a directory of its own."""

from pathlib import Path

import pytest

from interhub.hub.supervisor.engine import DbosEngine


@pytest.fixture
def engine(tmp_path: Path) -> DbosEngine:
    """An engine, not yet launched."""
    return DbosEngine(f"sqlite:///{tmp_path / 'engine.db'}")
