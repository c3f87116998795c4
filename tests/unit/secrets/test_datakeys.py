"""Data keys: one an organization, opened by one key of the platform's, and bound to what they are for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs
from sqlalchemy import update

from gateway.secret import Secret
from gateway.secrets.datakeys import WRAPPING_NAME, DataKeys, load_wrapping_key
from gateway.secrets.envelope import EnvelopeSecrets, is_envelope
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import StoreUnavailableError
from tenants.ids import OrgId
from tenants.persons import WrappedDataKey
from tenants.sql import tables
from tenants.sql.store import SqlControlStore
from tests.contract.control_store import new_store
from tests.unit.secrets.test_envelope import Key

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
WRAPPING = Secret(b"w" * 32)
PLAIN = Secret(b"somebody's own key")


def now() -> float:
    return 1_800_000_000.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlControlStore]:
    opened = await new_store(tmp_path / "control.db")
    yield opened
    await opened.close()


async def test_the_same_key_is_there_after_a_restart(store: SqlControlStore) -> None:
    wrapped = (await DataKeys(store.persons, WRAPPING, now).get(ACME)).wrap("one", PLAIN)
    again = DataKeys(store.persons, WRAPPING, now)
    await again.check()
    assert (await again.get(ACME)).unwrap("one", wrapped).reveal() == PLAIN.reveal()
    row = await store.persons.data_key(ACME)
    assert row is not None
    assert row.made_at == 1_800_000_000


async def test_what_is_wrapped_opens_for_its_organization_and_name_alone(store: SqlControlStore) -> None:
    keys = DataKeys(store.persons, WRAPPING, now)
    acme, globex = await keys.get(ACME), await keys.get(GLOBEX)
    wrapped = acme.wrap("one", PLAIN)
    for key, name, text in (
        (acme, "two", wrapped),
        (globex, "one", wrapped),
        (acme, "one", wrapped[:-4] + "AAAA"),
        (acme, "one", "no base64"),
        (acme, "one", ""),
    ):
        with pytest.raises(ValueError, match="not sealed with this key"):
            key.unwrap(name, text)
    assert acme.wrap("one", PLAIN) != wrapped
    assert acme.finder("mem_1") == acme.finder("mem_1") != globex.finder("mem_1")
    assert len(acme.finder("mem_1")) == 43


async def test_a_row_of_another_organization_does_not_open(store: SqlControlStore) -> None:
    await DataKeys(store.persons, WRAPPING, now).get(ACME)
    row = await store.persons.data_key(ACME)
    assert row is not None
    await store.persons.add_data_key(structs.replace(row, org=GLOBEX))
    with pytest.raises(StoreUnavailableError, match="data key of 'globex'"):
        await DataKeys(store.persons, WRAPPING, now).get(GLOBEX)


async def test_a_store_and_a_sealed_file_of_different_times_are_refused_at_the_start(
    store: SqlControlStore,
) -> None:
    await DataKeys(store.persons, WRAPPING, now).get(ACME)
    with pytest.raises(StoreUnavailableError, match="restore both from one backup"):
        await DataKeys(store.persons, Secret(b"x" * 32), now).check()


async def test_only_so_many_are_kept_and_others_come_from_the_store_again(store: SqlControlStore) -> None:
    keys = DataKeys(store.persons, WRAPPING, now, most=2)
    first = await keys.get(ACME)
    assert await keys.get(ACME) is first
    for n in range(3):
        await keys.get(OrgId(f"org-{n}"))
    assert await keys.get(ACME) is not first
    assert (await keys.get(ACME)).finder("mem_1") == first.finder("mem_1")


async def test_of_two_processes_that_begin_at_once_one_key_stands(store: SqlControlStore) -> None:
    class Late:
        """A store that says nothing is there, as it was when this process looked."""

        def __getattr__(self, name: str) -> object:
            return getattr(store.persons, name)

        async def data_key(self, org: OrgId) -> WrappedDataKey | None:
            return None

    first = await DataKeys(store.persons, WRAPPING, now).get(ACME)
    second = await DataKeys(Late(), WRAPPING, now).get(ACME)  # type: ignore[arg-type]  # by __getattr__
    assert second.finder("mem_1") == first.finder("mem_1")


async def test_no_key_lies_anywhere_in_clear(store: SqlControlStore, tmp_path: Path) -> None:
    made: list[bytes] = []

    def random(count: int) -> bytes:
        made.append(bytes([65 + len(made)]) * count)
        return made[-1]

    await DataKeys(store.persons, WRAPPING, now, random).get(ACME)
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [key for key in made if len(key) == 32 and key in files] == []


async def test_the_key_of_keys_is_a_system_secret_that_transit_wraps(tmp_path: Path) -> None:
    sealed, transit = SealedFile(tmp_path / "secrets.sealed", Secret(b"m" * 32)), Key()
    made = await load_wrapping_key(EnvelopeSecrets(sealed, transit))
    lies = await sealed.load(WRAPPING_NAME)
    assert lies is not None
    assert is_envelope(lies)
    restarted = EnvelopeSecrets(sealed, transit)
    assert (await load_wrapping_key(restarted)).reveal() == made.reveal()
    transit.away = True  # sealed from here on: what was unwrapped serves on
    assert (await load_wrapping_key(restarted)).reveal() == made.reveal()


async def test_vault_is_asked_once_however_many_organizations_come(store: SqlControlStore, tmp_path: Path) -> None:
    transit = Key()
    secrets = EnvelopeSecrets(SealedFile(tmp_path / "secrets.sealed", Secret(b"m" * 32)), transit)
    keys = DataKeys(store.persons, await load_wrapping_key(secrets), now)
    transit.away = True
    for n in range(20):
        assert (await keys.get(OrgId(f"org-{n}"))).id
    assert transit.asked == ["encrypt"]


async def test_a_damaged_row_says_so(store: SqlControlStore) -> None:
    await DataKeys(store.persons, WRAPPING, now).get(ACME)
    async with store.engine.begin() as connection:
        await connection.execute(update(tables.data_keys).values(wrapped="AAAA"))
    with pytest.raises(StoreUnavailableError, match="does not open"):
        await DataKeys(store.persons, WRAPPING, now).get(ACME)
