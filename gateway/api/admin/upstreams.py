"""Upstreams, their keys, and a look whether one answers."""

from __future__ import annotations

from typing import ClassVar, Final
from urllib.parse import urlsplit

from litestar import Router, delete, get, post, put
from litestar.params import FromPath, RequestBody
from msgspec import Struct, structs

from gateway.api.admin.bodies import UpstreamBody, to_item
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.certs import HANDLERS as CERT_HANDLERS
from gateway.api.admin.certs import forget_cert
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.request import SecretBody
from gateway.api.admin.resource import Kind, collection
from gateway.api.admin.routing import operation
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.store import NoSuchSecretError, ReadOnlyKeys
from gateway.upstream.auth.shapes import ShapeError, judge, shape
from gateway.upstream.probe import ProbeResult
from tenants.models import Upstream
from tenants.roles import Operation
from tenants.store import VersionMismatchError

_ATTEMPTS: Final = 5


class KeyBody(SecretBody, frozen=True, forbid_unknown_fields=True):
    """`key`: 1 to 8192 ASCII characters, no spaces around them: the key alone, or the text of a JSON object for
    an upstream whose `auth` is `aws-sigv4` or `oauth-client-credentials`. It is never shown again."""

    RULE: ClassVar[str] = 'the body is {"key": "…"} with 1 to 8192 printable ASCII characters'

    key: str


class KeyVersion(Struct, frozen=True):
    """How many times the key was set or taken away so far."""

    version: int


class KeyState(Struct, frozen=True):
    version: int
    set: bool


@put(
    "/{key:str}/key",
    **operation(Operation.KEY_WRITE, "putUpstreamKey", body=True, conflict=True, summary="Set an upstream's key"),
)
async def put_key(caller: CallerDependency, key: FromPath[str], data: RequestBody[KeyBody]) -> KeyVersion:
    """Store a new version of the key and announce it to the workers."""
    secret = _judged(caller, await caller.store.upstreams.get(key), data)
    return KeyVersion(await _switch(caller, key, secret))


@post(
    "/{key:str}/key",
    status_code=200,
    **operation(
        Operation.KEY_WRITE, "rotateUpstreamKey", body=True, conflict=True, summary="Try a key, then set it"
    ),
)
async def rotate_key(caller: CallerDependency, key: FromPath[str], data: RequestBody[KeyBody]) -> KeyVersion:
    """Ask the upstream for its models with the new key; set it if that succeeds, and ask once more when every
    worker uses it. Refused then, the key from before is set again."""
    upstream = await caller.store.upstreams.get(key)
    secret = _judged(caller, upstream, data)
    before = await _credential(caller, key)
    tried = await caller.deps.probe.probe(upstream, Credential(0, secret))
    if not tried.ok:
        raise ProblemError(
            409,
            "key-not-taken",
            f"The new key was tried and did not pass: {tried.detail} (status {tried.status}). Nothing is changed.",
        )
    version = await _switch(caller, key, secret)
    again = await caller.deps.probe.probe(upstream, Credential(version, secret))
    if again.status in (401, 403) and before is not None:
        # A crash before this leaves the new key, which had passed once.
        await _switch(caller, key, before.secret)
        raise ProblemError(
            409,
            "key-rolled-back",
            f"The new key passed, was set, and then was refused with status {again.status}: the key from before is"
            " set again. Does the provider need time to make it known?",
        )
    return KeyVersion(version)


@delete(
    "/{key:str}/key",
    **operation(Operation.KEY_DELETE, "deleteUpstreamKey", conflict=True, summary="Take an upstream's key away"),
)
async def delete_key(caller: CallerDependency, key: FromPath[str]) -> None:
    """Requests to this upstream are refused with 503 until another key is set."""
    await caller.store.upstreams.get(key)
    await caller.deps.keys.delete(caller.org, key)
    # A crash here: the key is gone, and workers that hold it serve for a minute more at most.
    await caller.store.note("key.delete", key, caller.actor, {})
    await _announce(caller, key, 0)


@get("/{key:str}/key", **operation(Operation.KEY_READ, "getUpstreamKey", summary="See whether a key is set"))
async def get_key(caller: CallerDependency, key: FromPath[str]) -> KeyState:
    """The version, and whether there is a key. Never the key."""
    upstream = await caller.store.upstreams.get(key)
    held = await _credential(caller, key)
    # What other hands put there is announced by nobody: then the store knows the version.
    return KeyState(max(upstream.key_version, held.version if held is not None else 0), held is not None)


@post(
    "/{key:str}/test",
    status_code=200,
    **operation(Operation.UPSTREAM_TEST, "testUpstream", summary="Ask an upstream for its models"),
)
async def test(caller: CallerDependency, key: FromPath[str]) -> ProbeResult:
    """`GET <base_url>/v1/models` with the key, from the control process. Says what it met, never the answer."""
    upstream = await caller.store.upstreams.get(key)
    await caller.store.note("upstream.test", key, caller.actor, {})
    return await caller.deps.probe.probe(upstream, await _credential(caller, key))


def _judged(caller: Caller, upstream: Upstream, body: KeyBody) -> Secret:
    """The key as it is kept: of the kind that the upstream's `auth` says."""
    try:
        return judge(upstream.auth, body.key, caller.deps.check_url)
    except ShapeError as error:
        raise invalid(("key" if not error.field else f"key.{error.field}", str(error))) from None


async def _switch(caller: Caller, name: str, secret: Secret) -> int:
    """Store the next version, note it, and return when every live worker has been told."""
    stored = await caller.deps.keys.put(caller.org, name, secret)
    # A crash here leaves a newer key stored than announced, and no entry for it: workers go on with the one
    # they hold and find the newer one when its lease is renewed, a minute later at most. The caller got no
    # answer; doing it again stores and announces the next version.
    await caller.store.note("key.write", name, caller.actor, {"version": stored})
    return await _announce(caller, name, stored)


async def _credential(caller: Caller, upstream: str) -> Credential | None:
    try:
        return await caller.deps.keys.get(caller.org, upstream)
    except NoSuchSecretError:
        return None


async def _announce(caller: Caller, name: str, stored: int) -> int:
    """Raise the upstream's key version, so that every worker reads the key again. It never falls: a worker
    that had missed the fall would take the next rise for the key it holds."""
    for _ in range(_ATTEMPTS):
        current = await caller.store.upstreams.get(name)
        version = max(stored, current.key_version + 1)
        try:
            await caller.store.upstreams.replace(
                structs.replace(current, key_version=version), current.version, caller.actor
            )
        except VersionMismatchError:
            continue
        await caller.live()
        return version
    raise ProblemError(409, "busy", "The upstream keeps being changed by somebody else; try again.")


def _make(caller: Caller, body: UpstreamBody, current: Upstream | None) -> Upstream:
    if wrong := caller.deps.check_url(body.base_url):
        raise invalid(("base_url", wrong))
    return to_item(Upstream, body, current, org=caller.org)


async def _replacing(caller: Caller, current: Upstream, item: Upstream) -> None:
    """A key goes to the server that it was given for. An admin, who may write keys and read none, would else
    read this one at a server of their own. And it goes there as what it is: a client's secret is no bearer key."""
    moved = urlsplit(current.base_url)[:2] != urlsplit(item.base_url)[:2]
    if not moved and shape(current.auth) == shape(item.auth):
        return
    if await _credential(caller, item.name) is not None:
        field, given = ("base_url", "for the server it leads to") if moved else ("auth", "as its auth says")
        raise ProblemError(
            409,
            "in-use",
            f"The upstream has a key, which was given {given} now: delete the key, change {field}, then set the "
            "key again. Or make another upstream and let the models lead there.",
        )


async def _deleting(caller: Caller, name: str) -> None:
    """A key that cannot be taken away would belong to whoever makes the next upstream of this name, and go to the
    server that they choose."""
    keys = caller.deps.keys
    if isinstance(keys, ReadOnlyKeys) and await _credential(caller, name) is not None:
        raise ProblemError(
            409, "in-use", f"The upstream has a key. Take it away first: {keys.whence(caller.org, name)}."
        )


async def _deleted(caller: Caller, name: str) -> None:
    # A crash before this leaves a key under a name that nothing points to. An upstream made anew under that
    # name begins with key version 0, which no worker serves from what it holds.
    if await _credential(caller, name) is not None:
        await caller.deps.keys.delete(caller.org, name)
    await forget_cert(caller, name)


def router() -> Router:
    return collection(
        Kind(
            noun="upstream",
            model=Upstream,
            body=UpstreamBody,
            filters=("name", "base_url", "protocol"),
            repository=lambda store: store.upstreams,
            make=_make,
            replacing=_replacing,
            deleting=_deleting,
            deleted=_deleted,
        ),
        put_key,
        rotate_key,
        delete_key,
        get_key,
        *CERT_HANDLERS,
        test,
    )
