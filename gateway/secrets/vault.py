"""Upstream keys in HashiCorp Vault or OpenBao: KV v2, one role per organization, one token per role.

hvac blocks, so it runs in a few threads. Every call, its login included, ends within `vault.timeout_s`; a
call that ran out of time may still complete. Tokens are renewed behind everybody's back at two thirds of
their life, replaced when their maximum is near, and given back when an organization has been quiet for as
long as its key may be served without asking.

Trusted: whoever has an organization's secret id (or may log in as its role) reads and writes that
organization's keys, and no other's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError, SystemSecrets, upstream_path
from gateway.secrets.vault_client import VaultAnswerError, VaultServer
from gateway.secrets.vault_login import Token, granted, keep, kept, kept_name, log_in, read_credential, unwrap
from gateway.vault_settings import VaultSettings
from tenants.ids import OrgId

FIELD: Final = "key"
"""The field of a secret that holds the key; others are left alone."""

LONGEST: Final = 8192
THREADS: Final = 4
RENEW_AT: Final = 2 / 3
QUIET_S: Final = 15 * 60.0
RETRY_S: Final = 2.0
LAST_VERSIONS: Final = 10
"""How far back `put` looks for versions to destroy: KV v2 keeps 10 unless told otherwise."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Role:
    """What is known of one organization's role. Changed only on the event loop.

    `token_ends` and `used_at` are monotonic seconds. `life_s` is the first lease of the token: a renewal that
    gives much less says that its maximum is near. `entering` is the one login under way.
    """

    __slots__ = ("entering", "life_s", "org", "timer", "token", "token_ends", "used_at")

    def __init__(self, org: OrgId) -> None:
        self.org = org
        self.token: Token | None = None
        self.token_ends = 0.0
        self.life_s = 0.0
        self.used_at = 0.0
        self.entering: asyncio.Task[Token] | None = None
        self.timer: asyncio.TimerHandle | None = None


class VaultKeys:
    """`UpstreamKeys` on a Vault. `memory` keeps unwrapped secret ids. Belongs to one event loop."""

    def __init__(
        self, vault: VaultSettings, home: Path, memory: SystemSecrets, clock: Callable[[], float]
    ) -> None:
        """`clock`: monotonic seconds. Raises `StoreUnavailableError` for a CA file that is not there."""
        self._vault = vault
        self._home = home
        self._memory = memory
        self._clock = clock
        self._server = VaultServer(vault, home, threads=THREADS)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="vault")
        self._roles: dict[OrgId, _Role] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        if vault.auth == "token":
            log.warning("one token reads the upstream keys of all organizations: for development only")

    async def get(self, org: OrgId, upstream: str) -> Credential:
        """As the Protocol says. A secret without the field `key`, or with one that is no key, is a fault."""
        return await self._read(org, upstream, None)

    async def get_before(self, org: OrgId, upstream: str, version: int) -> Credential:
        """As the Protocol says. KV v2 counts without gaps: it is the version before, if that is not destroyed."""
        if version <= 1:
            raise NoSuchSecretError(f"nothing is older than version {version}")
        return await self._read(org, upstream, version - 1)

    async def _read(self, org: OrgId, upstream: str, wanted: int | None) -> Credential:
        path = upstream_path(org, upstream)

        def work(client: Any) -> Credential:
            answer = client.secrets.kv.v2.read_secret_version(
                path=path, version=wanted, mount_point=self._vault.mount, raise_on_deleted_version=True
            )
            match answer:
                case {"data": {"data": {"key": str(key)}, "metadata": {"version": int(version)}}}:
                    if _is_key(key):
                        return Credential(version, Secret(key))
            raise StoreUnavailableError(
                f"{self._vault.mount}/{path} has no field '{FIELD}' with 1 to {LONGEST} printable ASCII characters"
            )

        return await self._about(path, org, work)

    async def put(self, org: OrgId, upstream: str, secret: Secret, *, keep: bool = False) -> int:
        """As the Protocol says."""
        path = upstream_path(org, upstream)
        if not secret.reveal():
            raise ValueError("an upstream key cannot be empty")
        if not _is_key(secret.reveal().decode("latin-1")):
            raise ValueError(f"an upstream key has 1 to {LONGEST} printable ASCII characters")

        def work(client: Any) -> int:
            answer = client.secrets.kv.v2.create_or_update_secret(
                path=path, secret={FIELD: secret.reveal().decode()}, mount_point=self._vault.mount
            )
            match answer:
                case {"data": {"version": int(version)}}:
                    return version
            raise StoreUnavailableError(f"writing {self._vault.mount}/{path} was answered without a version")

        version = await self._about(path, org, work)
        # A crash here leaves the older version readable to this organization's role, until the next `put`.
        try:
            await self.forget_before(org, upstream, version - 1 if keep else version)
        except (StoreUnavailableError, NoSuchSecretError) as error:
            log.warning("the older versions of %s could not be destroyed: %s", path, error)
        return version

    async def forget_before(self, org: OrgId, upstream: str, version: int) -> None:
        """As the Protocol says: destroyed, not only deleted."""
        path = upstream_path(org, upstream)
        older = list(range(max(1, version - LAST_VERSIONS), version))
        if older:
            await self._about(path, org, lambda client: self._destroy(client, path, older))

    async def delete(self, org: OrgId, upstream: str) -> None:
        """As the Protocol says: every version is destroyed, and the metadata stay, so that versions count on."""
        path = upstream_path(org, upstream)

        def work(client: Any) -> bool:
            answer = client.secrets.kv.v2.read_secret_metadata(path=path, mount_point=self._vault.mount)
            match answer:
                case {"data": {"versions": dict(versions), "current_version": int(current)}}:
                    pass
                case _:
                    raise StoreUnavailableError(f"the metadata of {self._vault.mount}/{path} cannot be understood")
            alive = [int(number) for number, state in versions.items() if not state.get("destroyed")]
            if alive:
                self._destroy(client, path, alive)
            newest = versions.get(str(current), {})
            return not newest.get("destroyed") and not newest.get("deletion_time")

        if not await self._about(path, org, work):
            raise NoSuchSecretError(f"no key is stored at {path}")

    async def aclose(self) -> None:
        """End renewals and give the tokens back. One that cannot be given back ends by itself, within its TTL."""
        for role in self._roles.values():
            if role.timer is not None:
                role.timer.cancel()
        entering = [role.entering for role in self._roles.values() if role.entering is not None]
        for task in [*self._tasks, *entering]:
            task.cancel()
        await asyncio.gather(*self._tasks, *entering, return_exceptions=True)
        await asyncio.gather(*(self._give_back(role) for role in self._roles.values()))
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._server.close()

    # -- one call ---------------------------------------------------------------------------------------------

    async def _about(self, path: str, org: OrgId, work: Callable[[Any], T]) -> T:
        """Call `work` with the token of `org`. Raises `NoSuchSecretError`, `StoreUnavailableError`."""
        role = self._roles.setdefault(org, _Role(org))
        role.used_at = self._clock()
        try:
            async with asyncio.timeout(self._vault.timeout_s):
                return await self._with_token(role, work)
        except TimeoutError:
            limit = f"{self._vault.timeout_s:g} s"
            raise StoreUnavailableError(f"the server at {self._vault.address} did not answer in {limit}") from None
        except VaultAnswerError as error:
            if error.absent:
                raise NoSuchSecretError(f"no key is stored at {path}") from None
            raise

    async def _with_token(self, role: _Role, work: Callable[[Any], T]) -> T:
        before = role.token
        token = await self._token(role)
        try:
            return await self._in_thread(lambda: self._server.ask(role.org, token.value, work))
        except VaultAnswerError as error:
            # 403 is a token that was revoked, or that a restarted server never knew: log in again, once. If the
            # token is as fresh as can be, it is the policy that denies.
            if error.status != 403 or token is not before or self._vault.auth == "token":
                raise
        if role.token is token:
            role.token = None
        token = await self._token(role)
        return await self._in_thread(lambda: self._server.ask(role.org, token.value, work))

    def _destroy(self, client: Any, path: str, versions: list[int]) -> None:
        client.secrets.kv.v2.destroy_secret_versions(path=path, versions=versions, mount_point=self._vault.mount)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    # -- tokens -----------------------------------------------------------------------------------------------

    async def _token(self, role: _Role) -> Token:
        if role.token is not None and self._clock() < role.token_ends:
            return role.token
        if role.entering is None:
            role.entering = asyncio.ensure_future(self._enter(role))
            role.entering.add_done_callback(lambda task: _entered(role, task))
        return await asyncio.shield(role.entering)  # whoever started the login may leave; the others wait on

    async def _enter(self, role: _Role) -> Token:
        """Log in. One at a time for each role."""
        org = role.org
        credential = await self._in_thread(lambda: read_credential(self._vault, self._home, org))
        if self._vault.wrapped:
            credential = await self._unwrapped(org, credential)
        token = await self._in_thread(lambda: log_in(self._server, self._vault, org, credential))
        role.life_s = token.lease_s
        self._take(role, token)
        return token

    async def _unwrapped(self, org: OrgId, wrapping: Secret) -> Secret:
        """The secret id: from the sealed file, or unwrapped and put there for restarts and other processes."""
        known = kept(await self._memory.load(kept_name(org)), wrapping)
        if known is not None:
            return known
        try:
            secret_id = await self._in_thread(lambda: unwrap(self._server, self._vault, org, wrapping))
        except StoreUnavailableError:
            # Of two processes that come here together one is refused, and finds what the other has kept: now, or
            # when it tries again.
            known = kept(await self._memory.load(kept_name(org)), wrapping)
            if known is None:
                raise
            return known
        # A crash here loses the secret id for good: an operator wraps another one.
        await self._memory.store(kept_name(org), keep(wrapping, secret_id))
        return secret_id

    def _take(self, role: _Role, token: Token) -> None:
        role.token = token
        role.token_ends = self._clock() + token.lease_s if token.lease_s else float("inf")
        if token.lease_s:
            self._later(role, token.lease_s * RENEW_AT)

    def _later(self, role: _Role, delay_s: float) -> None:
        if role.timer is not None:
            role.timer.cancel()
        role.timer = asyncio.get_running_loop().call_later(delay_s, lambda: self._start(self._tend(role)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tend(self, role: _Role) -> None:
        """Renew the token of a role, or log in again, or give the token back if nobody needs it."""
        token = role.token
        if token is None:
            return
        if self._clock() - role.used_at >= QUIET_S:
            await self._give_back(role)
            return
        try:
            renewed = await self._renewed(role, token) if token.renewable else None
            if renewed is None or renewed.lease_s < role.life_s / 2:
                # What a renewal gives shrinks as the maximum TTL comes near; past it Vault refuses.
                await self._enter(role)
            else:
                self._take(role, renewed)
        except (StoreUnavailableError, TimeoutError) as error:
            log.warning("the token for %s was not renewed: %s", role.org, str(error) or "timed out")
            if self._clock() < role.token_ends:
                self._later(role, RETRY_S)

    async def _renewed(self, role: _Role, token: Token) -> Token | None:
        """None: this token cannot be renewed any more."""
        address = self._server.address
        try:
            async with asyncio.timeout(self._vault.timeout_s):
                return await self._in_thread(
                    lambda: self._server.ask(
                        role.org, token.value, lambda client: granted(client.auth.token.renew_self(), address)
                    )
                )
        except VaultAnswerError as error:
            if error.status in (400, 403):
                return None
            raise

    async def _give_back(self, role: _Role) -> None:
        token, role.token = role.token, None
        if token is None or not token.lease_s:
            return
        with contextlib.suppress(StoreUnavailableError, TimeoutError):  # then it ends by itself, within its TTL
            async with asyncio.timeout(min(1.0, self._vault.timeout_s)):
                await self._in_thread(
                    lambda: self._server.ask(role.org, token.value, lambda client: client.auth.token.revoke_self())
                )


def _entered(role: _Role, task: asyncio.Task[Token]) -> None:
    role.entering = None
    if not task.cancelled():
        task.exception()  # whoever waits has it; if nobody does any more, asyncio need not complain


def _is_key(text: str) -> bool:
    return 0 < len(text) <= LONGEST and text.isascii() and text.isprintable() and text == text.strip()
