"""Streams of the audit log: where it is sent as it grows. Their secrets are never shown."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar, Final

from litestar import Response, Router, get, post, put
from litestar.params import FromPath, RequestBody
from msgspec import Struct, structs

from gateway.api.admin.bodies import AuditStreamBody, to_item
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.request import SecretBody
from gateway.api.admin.resource import Kind, answer, collection
from gateway.api.admin.routing import operation
from gateway.secret import Secret
from gateway.secrets.pair import PairError, judge
from gateway.secrets.store import NoSuchSecretError
from gateway.streaming.streams import StreamState, StreamTest
from tenants.roles import Operation
from tenants.store import VersionMismatchError
from tenants.streams import FORMATS, AuditStream, StreamKind

_ATTEMPTS: Final = 5
SECRET_MAX: Final = 4_096


class StreamSecretBody(SecretBody, frozen=True, forbid_unknown_fields=True):
    """`secret`: Splunk's token; the value of `Authorization`, scheme included, for ndjson and otlp; `ID:SECRET`
    for S3. `cert` and `key` (PEM): the client certificate for syslog. Never shown again."""

    RULE: ClassVar[str] = 'the body is {"secret": "…"}, or {"cert": "…", "key": "…"} for syslog'

    secret: str = ""
    cert: str = ""
    key: str = ""


class StreamSecretVersion(Struct, frozen=True):
    """How often the secret was set so far."""

    version: int


class StreamStates(Struct, frozen=True):
    items: list[StreamState]


@put(
    "/{key:str}/secret",
    **operation(
        Operation.AUDIT_STREAM_UPDATE,
        "putAuditStreamSecret",
        body=True,
        conflict=True,
        summary="Set what a stream shows to its receiver",
    ),
)
async def put_secret(
    caller: CallerDependency, key: FromPath[str], data: RequestBody[StreamSecretBody]
) -> StreamSecretVersion:
    """The stream goes on with it at once."""
    stream = await caller.store.audit_streams.get(key)
    secret = _judged(stream, data, caller.deps.clock())
    # A crash between the two leaves the new secret in use from the next connection on. The caller got no answer.
    await caller.deps.stream_secrets.put(caller.org, key, secret)
    made = await _changed(caller, key, secret_version=stream.secret_version + 1)
    return StreamSecretVersion(made.secret_version)


@post(
    "/{key:str}/pause",
    status_code=200,
    **operation(Operation.AUDIT_STREAM_UPDATE, "pauseAuditStream", conflict=True, summary="Pause a stream"),
)
async def pause(caller: CallerDependency, key: FromPath[str]) -> Response[AuditStream]:
    """It keeps its place: entries wait in the log. Harmless when repeated."""
    return answer(await _changed(caller, key, paused=True))


@post(
    "/{key:str}/resume",
    status_code=200,
    **operation(Operation.AUDIT_STREAM_UPDATE, "resumeAuditStream", conflict=True, summary="Resume a stream"),
)
async def resume(caller: CallerDependency, key: FromPath[str]) -> Response[AuditStream]:
    """It goes on where it was. Harmless when repeated."""
    return answer(await _changed(caller, key, paused=False))


@post(
    "/{key:str}/test",
    status_code=200,
    **operation(Operation.AUDIT_STREAM_TEST, "testAuditStream", summary="Try a stream"),
)
async def test(caller: CallerDependency, key: FromPath[str]) -> StreamTest:
    """Sends an event `audit_stream.test`, which is no entry of the log, and says what it met."""
    stream = await caller.store.audit_streams.get(key)
    result = await caller.deps.streaming.test(stream)
    await caller.store.note("audit_stream.test", key, caller.actor, {"ok": result.ok})
    return result


@get(
    "/orgs/{org:str}/audit-streams-state",
    tags=["AuditStreams"],
    **operation(Operation.AUDIT_STREAM_READ, "getAuditStreamStates", summary="See how streams are"),
)
async def states(caller: CallerDependency) -> StreamStates:
    """How far each has come, how far behind it is, and why."""
    found, _ = await caller.store.audit_streams.page(limit=100)
    return StreamStates(await caller.deps.streaming.states(found))


async def _changed(caller: Caller, key: str, **changes: object) -> AuditStream:
    for _ in range(_ATTEMPTS):
        current = await caller.store.audit_streams.get(key)
        changed = structs.replace(current, **changes)
        if changed == current:
            return current
        try:
            return await caller.store.audit_streams.replace(changed, current.version, caller.actor)
        except VersionMismatchError:
            continue
    raise ProblemError(409, "busy", "The stream keeps being changed by somebody else; try again.")


def _judged(stream: AuditStream, data: StreamSecretBody, now: float) -> Secret:
    if stream.kind is StreamKind.SYSLOG:
        if data.secret or not stream.url.startswith("tls:"):
            raise invalid(("secret", "of a syslog stream is a client certificate for TLS: cert and key"))
        try:
            return judge(data.cert, data.key, now)
        except PairError as error:
            raise invalid((error.field, str(error))) from None
    if data.cert or data.key:
        raise invalid(("cert", "is for syslog streams"))
    text = data.secret
    if not 0 < len(text) <= SECRET_MAX or not text.isascii() or not text.isprintable() or text != text.strip():
        raise invalid(("secret", f"is 1 to {SECRET_MAX} printable ASCII characters, with no space around"))
    if stream.kind is StreamKind.S3 and not (text.partition(":")[0].isalnum() and text.partition(":")[2]):
        raise invalid(("secret", "is ID:SECRET, an access key of the bucket"))
    return Secret(text)


def _make(caller: Caller, body: AuditStreamBody, current: AuditStream | None) -> AuditStream:
    usual = FORMATS[body.kind][0]
    return to_item(AuditStream, structs.replace(body, format=body.format or usual), current, org=caller.org)


async def _creating(caller: Caller, item: AuditStream) -> None:
    if wrong := caller.deps.check_url(item.url):
        raise invalid(("url", wrong))


async def _replacing(caller: Caller, current: AuditStream, item: AuditStream) -> None:
    if (current.kind, current.from_start) != (item.kind, item.from_start):
        raise invalid(("kind", "and 'from_start' are for good: delete the stream and make another"))
    if _host(current.url) != _host(item.url) and current.secret_version:
        raise invalid(("url", "leads elsewhere, and the secret was given for another server: make another stream"))
    await _creating(caller, item)


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


async def _deleted(caller: Caller, key: str) -> None:
    """A crash before this leaves a secret under a name that nothing points to: one made anew begins without."""
    with suppress(NoSuchSecretError):
        await caller.deps.stream_secrets.delete(caller.org, key)


def router() -> Router:
    return collection(
        Kind(
            noun="audit_stream",
            model=AuditStream,
            body=AuditStreamBody,
            filters=("name", "kind"),
            repository=lambda store: store.audit_streams,
            make=_make,
            creating=_creating,
            replacing=_replacing,
            deleted=_deleted,
        ),
        put_secret,
        pause,
        resume,
        test,
    )
