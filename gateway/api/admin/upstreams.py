"""Upstreams, and a look whether one answers."""

from __future__ import annotations

from urllib.parse import urlsplit

from litestar import Router, post
from litestar.params import FromPath

from gateway.api.admin.bodies import UpstreamBody, to_item
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.certs import HANDLERS as CERT_HANDLERS
from gateway.api.admin.certs import forget_cert
from gateway.api.admin.keys import HANDLERS as KEY_HANDLERS
from gateway.api.admin.keys import credential_of
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.resource import Kind, collection
from gateway.api.admin.routing import operation
from gateway.secrets.store import ReadOnlyKeys
from gateway.upstream.auth.shapes import shape
from gateway.upstream.probe import ProbeResult
from tenants.models import Upstream
from tenants.roles import Operation
from tenants.store import NotFoundError
from tenants.validate import validate


@post(
    "/{key:str}/test",
    status_code=200,
    **operation(Operation.UPSTREAM_TEST, "testUpstream", summary="Ask an upstream for its models"),
)
async def test(caller: CallerDependency, key: FromPath[str]) -> ProbeResult:
    """`GET <base_url>/v1/models` with the key, from the control process. Says what it met, never the answer."""
    upstream = await caller.store.upstreams.get(key)
    await caller.store.note("upstream.test", key, caller.actor, {})
    return await caller.deps.probe.probe(upstream, await credential_of(caller, key))


def _make(caller: Caller, body: UpstreamBody, current: Upstream | None) -> Upstream:
    if wrong := caller.deps.check_url(body.base_url):
        raise invalid(("base_url", wrong))
    return to_item(Upstream, body, current, org=caller.org)


async def _creating(caller: Caller, item: Upstream) -> None:
    """What was left under this name by an upstream that is gone, because the store was away or the process ended
    just then, goes first: it was given for another server, and a test of this one would send it here."""
    if validate(item):
        return  # the write will refuse it
    try:
        await caller.store.upstreams.get(item.name)
    except NotFoundError:
        if not isinstance(caller.deps.keys, ReadOnlyKeys):
            await _forget(caller, item.name)


async def _replacing(caller: Caller, current: Upstream, item: Upstream) -> None:
    """A key goes to the server that it was given for. An admin, who may write keys and read none, would else
    read this one at a server of their own. And it goes there as what it is: a client's secret is no bearer key."""
    moved = urlsplit(current.base_url)[:2] != urlsplit(item.base_url)[:2]
    if not moved and shape(current.auth) == shape(item.auth):
        return
    if await credential_of(caller, item.name) is not None:
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
    if isinstance(keys, ReadOnlyKeys) and await credential_of(caller, name) is not None:
        raise ProblemError(
            409, "in-use", f"The upstream has a key. Take it away first: {keys.whence(caller.org, name)}."
        )


async def _deleted(caller: Caller, name: str) -> None:
    # A crash before this leaves a key under a name that nothing points to: `_creating` takes it away.
    await _forget(caller, name)


async def _forget(caller: Caller, name: str) -> None:
    if await credential_of(caller, name) is not None:
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
            creating=_creating,
            replacing=_replacing,
            deleting=_deleting,
            deleted=_deleted,
        ),
        *KEY_HANDLERS,
        *CERT_HANDLERS,
        test,
    )
