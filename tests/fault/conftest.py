"""Fixtures for file systems that fail when they are told to."""

from pathlib import Path

import pytest


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    """A gate is a file here; see `fault.frail`."""
    return tmp_path
