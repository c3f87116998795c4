"""Packs of an audit log for the tests of the offline verifier, and a bed for those of days."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tenants.models import Org
from tests.contract.control_store import new_store
from tests.fakes.audit import ACME, GLOBEX, write_old_pack, write_pack
from tests.unit.audit.daily import BY, Bed, Clock


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_pack(tmp_path / "pack", 12)
    return tmp_path / "pack"


@pytest.fixture(params=[1, 2])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A pack of 12 entries in each format that there has been."""
    (write_old_pack if request.param == 1 else write_pack)(tmp_path / "pack", 12)
    return tmp_path / "pack"


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    clock = Clock()
    store = await new_store(tmp_path / "control.db", clock.now)
    for org in (ACME, GLOBEX):
        await store.orgs.create(Org(id=org, name=org), BY)
    await store.outbox_done(10**6)
    made = Bed(store, tmp_path / "audit", clock)
    yield made
    await made.sequencer.close()
    await store.close()
