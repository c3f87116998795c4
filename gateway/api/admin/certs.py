"""Client certificates: what the gateway shows to an upstream that asks who is calling."""

from __future__ import annotations

from typing import ClassVar, Final

from litestar import delete, get, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, RequestBody
from msgspec import Struct, structs

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.request import SecretBody
from gateway.api.admin.routing import operation
from gateway.secret import Secret
from gateway.secrets.pair import CertFacts, PairError, facts, judge
from gateway.secrets.store import NoSuchSecretError
from tenants.roles import Operation
from tenants.store import VersionMismatchError

_ATTEMPTS: Final = 5


class CertBody(SecretBody, frozen=True, forbid_unknown_fields=True):
    """PEM texts: `cert` the chain, the gateway's own certificate first, `key` its private key, not encrypted.

    The key is never shown again.
    """

    RULE: ClassVar[str] = (
        'the body is {"cert": "…", "key": "…"} with a certificate chain and its private key in PEM'
    )

    cert: str
    key: str


class CertVersion(Struct, frozen=True):
    """How many times the certificate was set or taken away so far."""

    version: int


class CertState(Struct, frozen=True):
    """`subject` and `issuer` as RFC 4514 strings, `serial` in hexadecimal, times in Unix seconds; empty and 0
    when no certificate is set."""

    version: int
    set: bool
    subject: str = ""
    issuer: str = ""
    serial: str = ""
    not_before: int = 0
    not_after: int = 0


@put(
    "/{key:str}/cert",
    **operation(
        Operation.CERT_WRITE,
        "putUpstreamCert",
        body=True,
        conflict=True,
        summary="Set an upstream's client certificate",
    ),
)
async def put_cert(caller: CallerDependency, key: FromPath[str], data: RequestBody[CertBody]) -> CertVersion:
    """Store a pair, judged first, and announce it: connections made from then on show it."""
    upstream = await caller.store.upstreams.get(key)
    if not upstream.base_url.lower().startswith("https:"):
        raise invalid(("cert", "is shown over TLS alone, and the upstream's base_url is no https URL"))
    try:
        pair = judge(data.cert, data.key, caller.deps.clock())
    except PairError as error:
        raise invalid((error.field, str(error))) from None
    stored = await caller.deps.certs.put(caller.org, key, pair)
    # A crash here leaves a newer pair stored than announced, and no entry for it: workers show the older one on
    # the connections they make. The caller got no answer; doing it again stores and announces the next version.
    shown = facts(pair)
    await caller.store.note("cert.write", key, caller.actor, {"version": stored, **_told(shown)})
    return CertVersion(await _announce(caller, key, stored))


@delete(
    "/{key:str}/cert",
    **operation(
        Operation.CERT_DELETE,
        "deleteUpstreamCert",
        conflict=True,
        summary="Take an upstream's client certificate away",
    ),
)
async def delete_cert(caller: CallerDependency, key: FromPath[str]) -> None:
    """Connections made from then on show none."""
    await caller.store.upstreams.get(key)
    await caller.deps.certs.delete(caller.org, key)
    # A crash here: the pair is gone, and workers that hold it show it on connections of the next minute at most.
    await caller.store.note("cert.delete", key, caller.actor, {})
    await _announce(caller, key, 0)


@get(
    "/{key:str}/cert",
    **operation(Operation.CERT_READ, "getUpstreamCert", summary="See an upstream's client certificate"),
)
async def get_cert(caller: CallerDependency, key: FromPath[str]) -> CertState:
    """Whose it is, who issued it and how long it is in force. Never the key."""
    upstream = await caller.store.upstreams.get(key)
    pair = await _pair(caller, key)
    if pair is None:
        return CertState(upstream.client_cert_version, set=False)
    return CertState(upstream.client_cert_version, set=True, **structs.asdict(facts(pair)))


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (put_cert, delete_cert, get_cert)


async def forget_cert(caller: Caller, upstream: str) -> None:
    """The upstream was deleted. A crash before this leaves a pair under a name that nothing points to; an upstream
    made anew under it begins with version 0, for which none is shown."""
    if await _pair(caller, upstream) is not None:
        await caller.deps.certs.delete(caller.org, upstream)


async def _pair(caller: Caller, upstream: str) -> Secret | None:
    try:
        return (await caller.deps.certs.get(caller.org, upstream)).secret
    except NoSuchSecretError:
        return None


async def _announce(caller: Caller, name: str, stored: int) -> int:
    """Raise the upstream's certificate version, so that every worker makes new connections. It never falls."""
    for _ in range(_ATTEMPTS):
        current = await caller.store.upstreams.get(name)
        version = max(stored, current.client_cert_version + 1)
        changed = structs.replace(current, client_cert_version=version)
        try:
            await caller.store.upstreams.replace(changed, current.version, caller.actor)
        except VersionMismatchError:
            continue
        await caller.live()
        return version
    raise ProblemError(409, "busy", "The upstream keeps being changed by somebody else; try again.")


def _told(shown: CertFacts) -> dict[str, str | int]:
    return {"subject": shown.subject, "issuer": shown.issuer, "serial": shown.serial, "not_after": shown.not_after}
