"""The server under test: the fake Vault, then a real one when there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.vault import KINDS, VaultPlace, vault_place


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VaultPlace]:
    with vault_place(request.param, tmp_path) as made:
        yield made
