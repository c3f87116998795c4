"""A worker that is out of touch finds the same personal tokens in the store as it would be told of."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from tenants.opaque import digest_of
from tenants.snapshot import TenantRecord
from tenants.sql.reader import StoreReader
from tenants.sql.store import open_store
from tests.contract.control_store import NOW, OPERATOR
from tests.contract.test_static_keys import ACME, ANN, BOB, BOT, GLOBEX, key, stock


async def test_a_worker_out_of_touch_reads_the_same(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:{tmp_path}/control.db", clock=lambda: NOW)
    try:
        await stock(store)
        mine = store.for_org(ACME)
        for item in (key(models=("code",)), key(BOT), key(BOB, GLOBEX)):
            await store.for_org(item.org).static_keys.create(item, digest_of(item.id), OPERATOR)
        await mine.teams.add("core", ANN, OPERATOR)
        reader = StoreReader(tmp_path / "control.db", clock=lambda: NOW)
        try:
            found: dict[str, TenantRecord] = {one.org.id: one for one in reader.load()[1]}
            for where in (ACME, GLOBEX):
                assert found[where].static_keys == (await store.for_org(where).record()).static_keys
            assert [one.teams for one in found[ACME].static_keys if one.subject == ANN] == [("core",)]
            assert len(found[ACME].static_keys) == 2
            acme = await store.orgs.get(ACME)
            await store.orgs.replace(structs.replace(acme, personal_tokens=False), acme.version, OPERATOR)
            assert {one.org.id: len(one.static_keys) for one in reader.load()[1]}[ACME] == 0
        finally:
            reader.close()
    finally:
        await store.close()
