"""Keys of upstreams: set, rotated, on schedule too, taken away, and what is known of them. Never a key."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from litestar import delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, RequestBody
from msgspec import Meta, Struct

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.request import SecretBody
from gateway.api.admin.resource import After, Page, PageLimit
from gateway.api.admin.routing import operation
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.mint import MintError
from gateway.secrets.rotation import (
    MAX_OVERLAP_S,
    OVERLAP_S,
    BusyError,
    NotTakenError,
    RolledBackError,
    Rotated,
    RotationError,
)
from gateway.secrets.store import NoSuchSecretError, ReadOnlyError, ReadOnlyKeys
from gateway.upstream.auth.shapes import ShapeError, judge
from tenants.models import CredentialKind, KeyState, Upstream, UpstreamKey
from tenants.roles import Operation

LEAST_EVERY_S: Final = 3_600
MOST_EVERY_S: Final = 10 * 365 * 86_400

OverlapS = Annotated[int, Meta(ge=0, le=MAX_OVERLAP_S)]


class KeyBody(SecretBody, frozen=True, forbid_unknown_fields=True):
    """`key`: 1 to 8192 ASCII characters, no spaces around them: the key alone, or the text of a JSON object for
    an upstream whose `auth` is `aws-sigv4` or `oauth-client-credentials`. It is never shown again."""

    RULE: ClassVar[str] = 'the body is {"key": "…"} with 1 to 8192 printable ASCII characters'

    key: str


class RotateBody(SecretBody, frozen=True, forbid_unknown_fields=True):
    """`key` as when it is set. `overlap_s`: seconds for which the one before is kept, to go back to."""

    RULE: ClassVar[str] = (
        'the body is {"key": "…", "overlap_s": 600} with 1 to 8192 printable ASCII characters,'
        " and 0 to 2592000 seconds"
    )

    key: str
    overlap_s: OverlapS = OVERLAP_S


class KeyVersion(Struct, frozen=True):
    """How many times the key was set or taken away so far."""

    version: int


class KeyPresence(Struct, frozen=True):
    version: int
    set: bool


class ScheduleBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Every `every_s` seconds (an hour to ten years) `command` is run with the organization and the upstream as
    its arguments, and what it prints becomes the key. `revoke`, if any, is run when the overlap ends, with the key
    before on its stdin. Both must be among `secrets.mint_commands`."""

    every_s: Annotated[int, Meta(ge=LEAST_EVERY_S, le=MOST_EVERY_S)]
    command: str
    revoke: str = ""
    overlap_s: OverlapS = OVERLAP_S


class Schedule(Struct, frozen=True):
    """`failure`: why the last rotation did not succeed, or was rolled back."""

    every_s: int
    command: str
    revoke: str
    overlap_s: int
    next_at: int
    failure: str


class KeyFacts(Struct, frozen=True):
    """What is known of an upstream's key. Times in Unix seconds, 0: not, or not known.

    `version` as announced, `stored` as the store of keys counts. `used_at` to a few seconds.
    """

    upstream: str
    kind: CredentialKind
    state: KeyState
    version: int
    stored: int
    set_at: int
    used_at: int
    overlap_ends_at: int
    next_at: int
    failure: str


@put(
    "/{key:str}/key",
    **operation(Operation.KEY_WRITE, "putUpstreamKey", body=True, conflict=True, summary="Set an upstream's key"),
)
async def put_key(caller: CallerDependency, key: FromPath[str], data: RequestBody[KeyBody]) -> KeyVersion:
    """Store a new version of the key and announce it to the workers."""
    secret = _judged(caller, await caller.store.upstreams.get(key), data.key)
    try:
        return KeyVersion(await caller.deps.rotations.put(caller.org, key, secret, caller.actor))
    except RotationError as error:
        raise _problem(error) from None


@post(
    "/{key:str}/key",
    status_code=200,
    **operation(
        Operation.KEY_WRITE, "rotateUpstreamKey", body=True, conflict=True, summary="Try a key, then set it"
    ),
)
async def rotate_key(caller: CallerDependency, key: FromPath[str], data: RequestBody[RotateBody]) -> Rotated:
    """Ask the upstream for its models with the new key; set it if that succeeds, and ask once more when every
    worker uses it. The key from before is kept for `overlap_s` seconds, and set again if the new one is refused
    meanwhile, by this or by a member's request; then it is destroyed."""
    secret = _judged(caller, await caller.store.upstreams.get(key), data.key)
    try:
        return await caller.deps.rotations.rotate(caller.org, key, secret, caller.actor, data.overlap_s)
    except RotationError as error:
        raise _problem(error) from None


@delete(
    "/{key:str}/key",
    **operation(Operation.KEY_DELETE, "deleteUpstreamKey", conflict=True, summary="Take an upstream's key away"),
)
async def delete_key(caller: CallerDependency, key: FromPath[str]) -> None:
    """Requests to this upstream are refused with 503 until another key is set. Its schedule ends too."""
    await caller.store.upstreams.get(key)
    try:
        await caller.deps.rotations.delete(caller.org, key, caller.actor)
    except RotationError as error:
        raise _problem(error) from None


@get("/{key:str}/key", **operation(Operation.KEY_READ, "getUpstreamKey", summary="See whether a key is set"))
async def get_key(caller: CallerDependency, key: FromPath[str]) -> KeyPresence:
    """The version, and whether there is a key. Never the key."""
    upstream = await caller.store.upstreams.get(key)
    held = await credential_of(caller, key)
    # What other hands put there is announced by nobody: then the store knows the version.
    return KeyPresence(max(upstream.key_version, held.version if held is not None else 0), held is not None)


@put(
    "/{key:str}/key/schedule",
    **operation(
        Operation.KEY_WRITE, "putKeySchedule", body=True, conflict=True, summary="Rotate a key on schedule"
    ),
)
async def put_schedule(caller: CallerDependency, key: FromPath[str], data: RequestBody[ScheduleBody]) -> Schedule:
    """The first rotation is one period from now. One that was missed, because the gateway was down, is made up for
    once."""
    await caller.store.upstreams.get(key)
    keys = caller.deps.keys
    if isinstance(keys, ReadOnlyKeys):
        raise ReadOnlyError(keys.whence(caller.org, key))
    wanted = UpstreamKey(
        caller.org,
        key,
        every_s=data.every_s,
        command=data.command,
        revoke=data.revoke,
        rotate_overlap_s=data.overlap_s,
    )
    try:
        return _schedule(await caller.deps.rotations.schedule(wanted, caller.actor))
    except MintError as error:
        raise invalid(("command", str(error))) from None


@get("/{key:str}/key/schedule", **operation(Operation.KEY_READ, "getKeySchedule", summary="See a key's schedule"))
async def get_schedule(caller: CallerDependency, key: FromPath[str]) -> Schedule:
    """404 where there is none."""
    await caller.store.upstreams.get(key)
    record = await caller.deps.store.keys.get(caller.org, key)
    if not record.every_s:
        raise NoSuchSecretError("no schedule")
    return _schedule(record)


@delete(
    "/{key:str}/key/schedule",
    **operation(Operation.KEY_WRITE, "deleteKeySchedule", summary="End a key's schedule"),
)
async def delete_schedule(caller: CallerDependency, key: FromPath[str]) -> None:
    """The key stays as it is."""
    await caller.store.upstreams.get(key)
    if not (await caller.deps.store.keys.get(caller.org, key)).every_s:
        raise NoSuchSecretError("no schedule")
    await caller.deps.rotations.schedule(UpstreamKey(caller.org, key), caller.actor)


@get(
    "/orgs/{org:str}/keys",
    tags=["Upstreams"],
    **operation(Operation.KEY_READ, "listKeys", query=True, summary="List what is known of keys"),
)
async def list_keys(caller: CallerDependency, after: After = "", limit: PageLimit = 100) -> Page[KeyFacts]:
    """One for each upstream, by its name: versions, ages, rotations. Never a key."""
    upstreams, following = await caller.store.upstreams.page(after=after, limit=limit)
    known = {record.name: record for record in await caller.deps.store.keys.all(caller.org)}
    items = [await _facts(caller, upstream, known.get(upstream.name)) for upstream in upstreams]
    return Page(tuple(items), following)


async def _facts(caller: Caller, upstream: Upstream, record: UpstreamKey | None) -> KeyFacts:
    deps, name = caller.deps, upstream.name
    if record is None or record.state is KeyState.NONE:
        # Set before the book was kept, or put there by other hands: then the store knows.
        foreign = upstream.key_version > 0 and record is None
        held = None
        if isinstance(deps.keys, ReadOnlyKeys) or foreign:
            held = await credential_of(caller, name)
        state, stored = (KeyState.NONE, 0) if held is None else (KeyState.SET, held.version)
        record = record or UpstreamKey(caller.org, name)
    else:
        state, stored = record.state, record.stored
    return KeyFacts(
        upstream=name,
        kind=upstream.auth,
        state=state,
        version=upstream.key_version or stored,
        stored=stored,
        set_at=record.set_at,
        used_at=max(record.used_at, deps.key_used_at(caller.org, name)),
        overlap_ends_at=record.overlap_ends_at,
        next_at=record.next_at,
        failure=record.failure,
    )


def _schedule(record: UpstreamKey) -> Schedule:
    return Schedule(
        every_s=record.every_s,
        command=record.command,
        revoke=record.revoke,
        overlap_s=record.rotate_overlap_s,
        next_at=record.next_at,
        failure=record.failure,
    )


def _judged(caller: Caller, upstream: Upstream, key: str) -> Secret:
    """The key as it is kept: of the kind that the upstream's `auth` says."""
    try:
        return judge(upstream.auth, key, caller.deps.check_url)
    except ShapeError as error:
        raise invalid(("key" if not error.field else f"key.{error.field}", str(error))) from None


async def credential_of(caller: Caller, upstream: str) -> Credential | None:
    """The key of an upstream of the caller's organization, if there is one."""
    try:
        return await caller.deps.keys.get(caller.org, upstream)
    except NoSuchSecretError:
        return None


_CODES: Final[dict[type[RotationError], str]] = {
    NotTakenError: "key-not-taken",
    RolledBackError: "key-rolled-back",
    BusyError: "busy",
}


def _problem(error: RotationError) -> ProblemError:
    return ProblemError(409, _CODES[type(error)], str(error))


HANDLERS: Final[tuple[HTTPRouteHandler | Any, ...]] = (
    put_key,
    rotate_key,
    delete_key,
    get_key,
    put_schedule,
    get_schedule,
    delete_schedule,
)
