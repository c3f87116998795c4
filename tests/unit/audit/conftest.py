"""Packs of an audit log for the tests of the offline verifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.audit import write_old_pack, write_pack


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_pack(tmp_path / "pack", 12)
    return tmp_path / "pack"


@pytest.fixture(params=[1, 2])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A pack of 12 entries in each format that there has been."""
    (write_old_pack if request.param == 1 else write_pack)(tmp_path / "pack", 12)
    return tmp_path / "pack"
