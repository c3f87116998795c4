"""An authorization server over a real SQLite store, with a clock that stands still and cheap password hashes."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import pytest
from argon2 import PasswordHasher
from joserfc.jwk import RSAKey
from msgspec.structs import replace

from gateway.oauth import signing
from gateway.oauth.caller import Caller
from gateway.oauth.clients import GrantType
from gateway.oauth.service import OAuthService
from gateway.oauth.signing import SigningKeys
from gateway.oauth.sql import SqlOAuthStore
from gateway.secret import Secret
from gateway.settings import Server, Settings, Tokens
from policies.facts import Role
from tenants.ids import MemberId, OrgId
from tenants.models import Member, Org, State
from tenants.sql.store import SqlControlStore, open_store
from tenants.store import Actor, Change

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ADA, GUS = MemberId("mem_ada"), MemberId("mem_gus")
BY = Actor(org=OrgId("platform"), member="system")
PASSWORD = "correct horse battery"
ISSUER = "https://gateway.example"
HERE = Caller(address="192.0.2.1", request_id="req-1")


class Shelf:
    """Secrets in memory. The signing keys are made once for all tests: RSA takes its time."""

    keys: Secret | None = None

    def __init__(self) -> None:
        self.held: dict[str, Secret] = {}

    async def load(self, name: str) -> Secret | None:
        return self.held.get(name) or (Shelf.keys if name.startswith("signing/") else None)

    async def store(self, name: str, secret: Secret) -> None:
        self.held[name] = secret
        if name.startswith("signing/") and Shelf.keys is None:
            Shelf.keys = secret


class _ReadOnce(RSAKey):
    """Reading a private key has its factors proven prime: 40 ms, for every test the same key's."""

    known: ClassVar[dict[str, Any]] = {}

    @classmethod
    def import_key(cls, value: Any, *args: Any, **more: Any) -> Self:
        whole = repr(sorted(value.items()))
        if whole not in cls.known:
            cls.known[whole] = super().import_key(value, *args, **more)
        return cast(Self, cls.known[whole])


@pytest.fixture(scope="package", autouse=True)
def keys_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing, "RSAKey", _ReadOnce)
        yield


class Bench:
    """The service, what is behind it, and short ways to say what a person does."""

    def __init__(self, control: SqlControlStore, store: SqlOAuthStore) -> None:
        self.control = control
        self.store = store
        self.now = 1_800_000_000.0
        self.service: OAuthService
        self.signing: SigningKeys

    async def start(self, **config: int) -> None:
        secrets = Shelf()
        self.signing = await SigningKeys.load_or_create(secrets, lambda: self.now)
        self.service = await OAuthService.open(
            settings=Settings(server=Server(url=ISSUER), tokens=Tokens(**config)),
            control=self.control,
            store=self.store,
            secrets=secrets,
            signing=self.signing,
            clock=lambda: self.now,
            hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1),
        )

    async def join(self, org: OrgId, member: MemberId, email: str, password: str = PASSWORD) -> None:
        invitation = await self.service.invite(org, member)
        form = {
            "org": org,
            "email": email,
            "code": invitation.code,
            "password": password,
            "password_again": password,
        }
        assert await self.service.accept_invitation(form, HERE) == "accepted"

    async def decide(self, user_code: str, action: str = "approve", **changes: str) -> str:
        form = {"user_code": user_code, "org": "acme", "email": "ada@acme.example", "password": PASSWORD}
        return await self.service.decide_device({**form, "action": action, **changes}, HERE)

    async def begin(self, client: str = "orgate-cli", **form: str) -> dict[str, Any]:
        return await self.service.device_authorization({"client_id": client, **form}, HERE)

    async def redeem(self, device_code: str, client: str = "orgate-cli", **form: str) -> dict[str, Any]:
        grant = {"grant_type": GrantType.DEVICE_CODE.value, "device_code": device_code, "client_id": client}
        return await self.service.token({**grant, **form}, HERE)

    async def refresh(self, token: str, client: str = "orgate-cli", **form: str) -> dict[str, Any]:
        grant = {"grant_type": "refresh_token", "refresh_token": token, "client_id": client}
        return await self.service.token({**grant, **form}, HERE)

    async def login(self, client: str = "orgate-cli") -> dict[str, Any]:
        device = await self.begin(client)
        await self.decide(device["user_code"])
        return await self.redeem(device["device_code"], client)

    async def suspend(self, member: MemberId = ADA) -> None:
        found = await self.control.for_org(ACME).members.get(member)
        changed = replace(found, state=State.SUSPENDED)
        await self.control.for_org(ACME).members.replace(changed, found.version, BY)

    async def suspend_org(self, state: State = State.SUSPENDED) -> None:
        found = await self.control.orgs.get(ACME)
        await self.control.orgs.replace(replace(found, state=state), found.version, BY)

    async def noted(self, prefix: str = "session.") -> list[Change]:
        return [change for change in await self.control.outbox() if change.action.startswith(prefix)]


async def _furnish(file: Path) -> None:
    made = await _open(file)
    for org, member, email in ((ACME, ADA, "ada@acme.example"), (GLOBEX, GUS, "gus@globex.example")):
        await made.control.orgs.create(Org(id=org, name=org), BY)
        await made.control.for_org(org).members.create(
            Member(org=org, id=member, email=email, name="Ada", roles=(Role.MEMBER,)), BY
        )
        await made.join(org, member, email)
    await made.control.close()


async def _open(file: Path) -> Bench:
    holder: list[Bench] = []
    control = await open_store(f"sqlite:{file}", clock=lambda: holder[0].now if holder else 1.8e9)
    made = Bench(control, await SqlOAuthStore.open(control.engine))
    holder.append(made)
    await made.start()
    return made


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with two organizations and a member with a password in each, made once and copied."""
    file = tmp_path_factory.mktemp("oauth") / "control.db"
    with asyncio.Runner() as runner:
        runner.run(_furnish(file))
    return file


@pytest.fixture
async def bench(tmp_path: Path, furnished: Path) -> AsyncIterator[Bench]:
    made = await _open(Path(shutil.copy(furnished, tmp_path / "control.db")))
    yield made
    await made.control.close()


USER_CODE = re.compile(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}")
