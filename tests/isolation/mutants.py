"""Builds that are broken on purpose, each in one place where an organization could be forgotten.

Applied in a started gateway's own processes by `hooked.py`. `catches` is the part of the proof that has to notice;
`redis` says that limits are in Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.isolation import behaviour, looks
from tests.isolation.matrix import Matrix
from tests.isolation.table import Route

Break = Callable[[], None]
Look = Callable[[Matrix], None]


@dataclass(frozen=True)
class Mutant:
    """`part`: which store, cache, stream, export or guard is broken. `routes`: those that the matrix asks then."""

    name: str
    part: str
    break_it: Break
    catches: Look
    routes: Callable[[Route], bool] = field(default=lambda route: True)
    redis: bool = False


MUTANTS: dict[str, Mutant] = {}


def mutant(part: str, catches: Look, *ends: str, redis: bool = False) -> Callable[[Break], Break]:
    """`ends`: how the paths end that are asked; all of them without."""

    def add(break_it: Break) -> Break:
        name = break_it.__name__.replace("_", "-")

        def chosen(route: Route) -> bool:
            return not ends or route.path.endswith(ends)

        MUTANTS[name] = Mutant(name, part, break_it, catches, chosen, redis)
        return break_it

    return add


class ByName(dict[Any, Any]):
    """A mapping by (organization, name) that takes no notice of the organization."""

    def __init__(self, kept: Callable[[Any], Any] = lambda key: key[1:]) -> None:
        super().__init__()
        self._kept = kept

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self._kept(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(self._kept(key), value)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(self._kept(key))

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(self._kept(key), default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        return super().setdefault(self._kept(key), default)

    def pop(self, key: Any, *default: Any) -> Any:
        return super().pop(self._kept(key), *default)

    def move_to_end(self, key: Any) -> None:
        pass

    def popitem(self, last: bool = True) -> Any:
        return super().popitem()


def put(owner: Any, name: str, value: Any) -> None:
    """Another thing in the place of a method or a function, whatever its type."""
    setattr(owner, name, value)


# -- stores -----------------------------------------------------------------------------------------------


@mutant("control store", looks.strangers, "/teams/{key}", "/models/{key}")
def store_reads_any_row() -> None:
    """`WHERE name = …`, and no organization."""
    from tenants.sql.repository import ScopedRepository

    put(ScopedRepository, "_mine", lambda self, *wanted: wanted or (self._table.c.org != "",))


@mutant("control store", looks.residents, "/teams", "/models", "/limits")
def store_lists_every_row() -> None:
    """A page of everybody's."""
    from sqlalchemy import select

    from tenants.sql import repository
    from tenants.sql.paging import page

    async def unscoped(database: Any, statement: Any, kind: Any, key: Any, **more: Any) -> Any:
        return await page(database, select(*statement.selected_columns), kind, key, **more)

    put(repository, "page", unscoped)


@mutant("snapshot", looks.data, "/v1/completions")
def snapshot_finds_any_alias() -> None:
    """A model is looked up by its alias alone."""
    from tenants.snapshot import Snapshot

    made = Snapshot.__init__

    def merged(self: Snapshot, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        every = {name: model for tenant in self.tenants.values() for name, model in tenant.models.items()}
        for tenant in self.tenants.values():
            tenant.models = {**every, **tenant.models}

    put(Snapshot, "__init__", merged)


@mutant("audit log", looks.residents, "/audit/entries", "/audit/timeline")
def audit_reader_goes_by_index() -> None:
    """Entry 7 is entry 7: whose log it is in does not matter."""
    from gateway.audit.reader import LogReader

    found = LogReader.entries

    async def first(self: LogReader, org: Any, **more: Any) -> Any:
        return await found(self, _other(self._sequencer, org), **more)

    put(LogReader, "entries", first)


# -- caches -----------------------------------------------------------------------------------------------


@mutant("cache of upstream keys", behaviour.completions, "/v1/completions")
def key_lease_goes_by_upstream() -> None:
    """The key of the upstream named `shared`, whoever's."""
    from gateway.secrets.lease import KeyLeases

    made = KeyLeases.__init__

    def shared(self: KeyLeases, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        self._leases = ByName()

    put(KeyLeases, "__init__", shared)


@mutant("pool of upstream connections", behaviour.completions, "/v1/completions")
def relay_goes_to_another_upstream() -> None:
    """A pool is found by the upstream's name alone: the request goes where another organization's go."""
    from gateway.upstream.transport import TransportPool

    first: dict[str, Any] = {}
    found = TransportPool.for_upstream

    def shared(self: TransportPool, upstream: Any) -> Any:
        return found(self, first.setdefault(upstream.name, upstream))

    put(TransportPool, "for_upstream", shared)


@mutant("cache of tokens", looks.data, "/v1/models")
def token_cache_goes_by_length() -> None:
    """Whoever's token is as long as one that was verified is whoever that was."""
    from gateway.authn.verify import Authenticator

    made = Authenticator.__init__

    def shared(self: Authenticator, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        self._cache = ByName(len)  # type: ignore[assignment]

    put(Authenticator, "__init__", shared)


# -- limits -----------------------------------------------------------------------------------------------


@mutant("limits in memory", behaviour.exhaustion, "/v1/completions")
def buckets_go_by_limit() -> None:
    """One account for all: who is loud uses up what others have."""
    from gateway.limits.slices import SlicedLimits
    from tenants.ids import OrgId

    session = SlicedLimits._session
    put(SlicedLimits, "_session", lambda self, org: session(self, OrgId("acme")))


@mutant("usage of limits", looks.usage, "/usage", "/limits-usage")
def usage_is_everybodys() -> None:
    from gateway.limits.accounts import LimitOwner

    one = LimitOwner.usage

    async def every(self: LimitOwner, org: Any) -> Any:
        return [item for other in list(self._accounts) for item in await one(self, other)]

    put(LimitOwner, "usage", every)


@mutant("limits in Redis", looks.redis, "/v1/completions", redis=True)
def redis_key_has_no_hash_tag() -> None:
    from gateway.limits.redis_route import Single

    run = Single.run

    async def untagged(self: Any, org: Any, keys: Any, arguments: Any) -> Any:
        return await run(self, org, [key.replace("{", "").replace("}", "") for key in keys], arguments)

    put(Single, "run", untagged)


# -- streams and exports ----------------------------------------------------------------------------------


@mutant("log stream", looks.delivered)
def stream_reads_another_log() -> None:
    """What an organization's receiver is sent is somebody else's log."""
    from gateway.streaming.stream import Stream

    made = Stream.__init__

    def crossed(self: Stream, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        reader: Any = self._raw.func.__self__  # type: ignore[attr-defined]
        self._raw = lambda *_: reader.raw(_other(reader._sequencer, self.stream.org), 0, 100)  # type: ignore[assignment]

    put(Stream, "__init__", crossed)


@mutant("export", behaviour.logs, "/audit/log", "/audit/export", "/audit/entries", "/audit/leaves")
def export_is_of_another_log() -> None:
    from gateway.audit.reader import LogReader

    matching = LogReader.matching

    def another(self: LogReader, org: Any, *rest: Any) -> Any:
        return matching(self, _other(self._sequencer, org), *rest)

    put(LogReader, "matching", another)


@mutant("long poll", behaviour.tails, "/audit/entries")
def long_poll_wakes_for_everybody() -> None:
    """One hub for all logs: who waits is given what has just come, whoever's it is."""
    from gateway.audit.reader import LogReader

    found, waited = LogReader.entries, LogReader.wait

    async def wait(self: LogReader, org: Any, after: int, timeout_s: float) -> bool:
        self.__dict__["of"] = {**self.__dict__.get("of", {}), org: await self.size(_other(self._sequencer, org))}
        await waited(self, org, after, timeout_s)
        return True

    async def entries(self: LogReader, org: Any, **more: Any) -> Any:
        if (since := self.__dict__.get("of", {}).get(org)) is None:
            return await found(self, org, **more)
        return await found(self, _other(self._sequencer, org), **{**more, "after": since, "action": ""})

    put(LogReader, "wait", wait)
    put(LogReader, "entries", entries)


# -- guards and answers -----------------------------------------------------------------------------------


@mutant("guard", looks.strangers, "/teams", "/members", "/limits/{key}", "/audit/log")
def guard_takes_the_path_for_it() -> None:
    """The role counts, and in which organization it is held does not."""
    from dataclasses import replace

    from gateway.api.admin import caller as module

    admitted = module._admit

    async def trusting(deps: Any, connection: Any, operation: Any) -> Any:
        org = connection.scope["path_params"].pop("org", None)
        caller = await admitted(deps, connection, operation)
        if org is None:
            return caller
        connection.scope["path_params"]["org"] = org
        return replace(caller, org=org, store=deps.store.for_org(org))

    put(module, "_admit", trusting)


@mutant("SCIM's guard", looks.strangers, "/Users", "/Groups/{key}")
def scim_takes_any_token() -> None:
    """A provisioning token is looked for everywhere, and opens the organization that the path names."""
    from dataclasses import replace

    from gateway.api.scim.caller import ScimGate
    from gateway.scim.errors import ScimError

    admit = ScimGate.admit

    async def anywhere(self: ScimGate, org_text: str, *rest: Any) -> Any:
        for org in (org_text, *self.deps.streams.snapshot.tenants):
            try:
                found = await admit(self, org, *rest)
            except ScimError:
                continue
            named: Any = org_text
            return replace(found, org=named, store=self.deps.store.for_org(named))
        return await admit(self, org_text, *rest)

    put(ScimGate, "admit", anywhere)


@mutant("introspection", looks.introspection)
def introspection_tells_everybody() -> None:
    """Whose token it is does not matter, if the client may ask at all."""
    from msgspec import structs

    from gateway.oauth.introspection import Introspection

    told = Introspection._of_access

    async def of_any(self: Introspection, token: str, client: Any) -> Any:
        claims = self._keys.own_claims(token) or {}
        return await told(self, token, structs.replace(client, org=claims.get("org", client.org)))

    put(Introspection, "_of_access", of_any)


@mutant("answer", looks.strangers, "/orgs/{org}", "/teams")
def refusal_says_that_it_exists() -> None:
    """403 where there is an organization, 404 where there is none."""
    from gateway.api.admin import caller as module
    from gateway.errors import ForbiddenError

    _before_admitting(module, lambda org, name: ForbiddenError("Not yours.", rule="org"))


@mutant("answer", looks.strangers, "/orgs/{org}", "/teams")
def error_says_a_name() -> None:
    from gateway.api.admin import caller as module
    from gateway.api.admin.problems import ProblemError

    _before_admitting(module, lambda org, name: ProblemError(403, "forbidden", f"{name} is not yours to see."))


@mutant("authentication", looks.data, "/v1/models")
def host_is_not_looked_at() -> None:
    _authenticating(lambda authenticate, self, given, host, *more: authenticate(self, given, "", *more))


@mutant("authentication", looks.data, "/v1/models")
def audience_is_not_looked_at() -> None:
    from msgspec import structs

    from gateway.authn import verify as module

    judged = module.__dict__["verify"]

    def any_audience(token: Any, keys: Any, issuer: str, audience: str) -> Any:
        found = judged(token, keys, issuer, audience)
        return structs.replace(found, principal=structs.replace(found.principal, audience=audience))

    put(module, "verify", any_audience)


@mutant("revocations", looks.data, "/v1/models")
def revocation_is_not_looked_at() -> None:
    from tenants.snapshot import Snapshot

    put(Snapshot, "revoked", lambda *_: False)


@mutant("web sessions", looks.cookies, "/orgs/{org}/audit", "/audit/timeline")
def any_cookie_is_the_newest_session() -> None:
    from gateway.oauth.web import WebSessions

    async def newest(self: WebSessions, *_: Any) -> str:
        return list(self._sessions.values())[-1].access

    put(WebSessions, "token", newest)


# -- what is left behind ----------------------------------------------------------------------------------


@mutant("log", looks.log)
def log_says_a_key() -> None:
    import logging

    from gateway.secrets.sealed import SealedFile

    write = SealedFile._write

    def telling(self: SealedFile, path: str, secret: Any, *rest: Any, **more: Any) -> int:
        logging.getLogger("orgate").warning("stored %s", secret.reveal())
        return write(self, path, secret, *rest, **more)

    put(SealedFile, "_write", telling)


@mutant("audit files", looks.files)
def entry_goes_into_two_logs() -> None:
    """What one organization did is written into another's log as well."""
    from gateway.audit.sequencer import Sequencer

    commit: Any = Sequencer._commit_all

    async def both(self: Sequencer, by_org: Any) -> None:
        others = [draft for org, drafts in by_org.items() if org not in {"acme", "platform"} for draft in drafts]
        await commit(self, {**by_org, "acme": [*by_org.get("acme", ()), *others]})

    put(Sequencer, "_commit_all", both)


def _other(sequencer: Any, org: Any) -> Any:
    return next((one for one in sorted(sequencer.known()) if one not in {org, "platform"}), org)


def _before_admitting(module: Any, error: Callable[[str, str], Exception]) -> None:
    admitted = module._admit

    async def telling(deps: Any, connection: Any, operation: Any) -> Any:
        org = connection.path_params.get("org", "")
        tenant = deps.streams.snapshot.tenants.get(org)
        try:
            return await admitted(deps, connection, operation)
        except module.NotFoundException:
            if tenant is not None:
                raise error(org, tenant.org.name) from None
            raise

    put(module, "_admit", telling)


def _authenticating(changed: Callable[..., Any]) -> None:
    from gateway.authn.verify import Authenticator

    authenticate = Authenticator.authenticate

    def other(self: Authenticator, given: Any, host: str, *more: Any, **named: Any) -> Any:
        return changed(lambda *args: authenticate(*args, **named), self, given, host, *more)

    put(Authenticator, "authenticate", other)
