"""What an operator asks of the Redis that counts limits: may we, can it, will it keep what it is told."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import UnavailableError
from gateway.limits.protocol import Part, SliceAsk, Wish
from gateway.limits.redis import RedisSlices, reason
from gateway.limits.redis_library import library
from gateway.limits.redis_open import open_route, read_password
from gateway.limits.redis_orgs import NOBODY, login_of
from gateway.limits.redis_server import Server
from gateway.limits.redis_wire import Login, ReplyError, WireError
from gateway.limits_settings import LimitsSettings, LimitsSettingsError
from tenants.ids import OrgId
from tenants.models import LimitUnit

Verdict = Literal["ok", "warning", "failed"]

INSIDE: Final = (
    "+get +set +mget +del +exists +pexpire +time +hget +hmget +hset +hdel +hgetall"
    " +zadd +zcard +zrem +zscan +zrangebyscore +zremrangebyscore"
)
"""What the library calls. Its caller must be allowed each of them."""

FUNCTIONS: Final = "+fcall +function|load"
SCRIPTS: Final = "+evalsha +script|load"

FIXES: Final = {
    "NOPERM": "give its user what `orgate limit acl` prints",
    "WRONGPASS": "limits.username, limits.password and its ACL must agree",
    "NOAUTH": "set limits.username and limits.password",
    "OOM": "raise its maxmemory",
    "MISCONF": "look at its disk",
    "READONLY": 'name the master, or set limits.topology = "sentinel"',
    "MOVED": 'set limits.topology = "cluster"',
}
"""What to do, by the code of Redis' error."""

OLDEST: Final = (6, 2)
APART_S: Final = 1.0


class Seen(Struct, frozen=True):
    """One look at one server: what was seen and, unless it is well, what to do."""

    server: str
    verdict: Verdict
    seen: str
    fix: str = ""


def acl_line(limits: LimitsSettings, home: Path, org: OrgId | None = None, *, scripts: bool = False) -> str:
    """The line of an ACL (`ACL SETUSER`, or `user` in an ACL file) with exactly what Orgate needs.

    Of one organization's keys only, with `org`. `scripts`: for Redis before 7, which has no functions. The
    password is a placeholder (Redis takes `>password`, or `#` and its SHA-256); of an organization's own user,
    whose password is derived, it is the SHA-256. Raises `LimitsSettingsError` when there is none to derive from.
    """
    user, password, whose = limits.username or "orgate", ">PASSWORD", org or "*"
    if limits.user_per_org and org is None:
        whose = NOBODY
    elif limits.user_per_org and org is not None:
        login = login_of(Login(limits.username, read_password(limits.password, home)), org)
        user = login.username
        if login.password is not None:
            password = "#" + hashlib.sha256(login.password.reveal()).hexdigest()
    calls = [SCRIPTS if scripts else FUNCTIONS, INSIDE, "+ping +info"]
    if limits.topology == "cluster":
        calls.append("+cluster|slots +asking")
    keys = f"~{limits.prefix}:{{{whose}}}:*"
    return f"user {user} on {password} {keys} resetchannels -@all {' '.join(calls)}"


async def examine_redis(limits: LimitsSettings, home: Path, now: Callable[[], float] = time.time) -> list[Seen]:
    """Every server that would be written to. No organization's keys are touched; the library is loaded where it
    is not."""
    text = library()
    try:
        route = open_route(limits, home, text)
    except LimitsSettingsError as error:
        return [Seen("settings", "failed", str(error), "put it there, or mend [limits]")]
    slices = RedisSlices(route, prefix=limits.prefix, text=text)
    where = ", ".join(limits.addresses)
    try:
        try:
            servers = await route.servers()
        except (WireError, ReplyError) as error:
            return [Seen(where, "failed", reason(error), _fix(error))]
        found = []
        for name, server in servers:
            found += await _server(name, server, now)
        if all(seen.verdict != "failed" for seen in found):
            found += await _account(slices, where)
        return found
    finally:
        await slices.aclose()


async def _server(name: str, server: Server, now: Callable[[], float]) -> list[Seen]:
    try:
        await server.load()
        info = _parsed(await server.command("INFO"))
        seconds, micros = await server.command("TIME")
    except (WireError, ReplyError) as error:
        return [Seen(name, "failed", reason(error), _fix(error))]
    apart = abs(int(seconds) + int(micros) / 1e6 - now())
    return [*_version(name, server, info), *_memory(name, info), *_disk(name, info), *_clock(name, apart)]


def _fix(error: ReplyError | WireError) -> str:
    return FIXES.get(
        error.code if isinstance(error, ReplyError) else "", "look at limits.addresses, and at the server"
    )


async def _account(slices: RedisSlices, name: str) -> list[Seen]:
    """Whether the library may do all that it does: takes one unit of a bucket that is nobody's, and returns it.
    What that leaves behind is gone within two days."""
    fresh = secrets.token_hex(4)  # a new bucket takes more rights than one that is there
    bucket = Part("doctor", fresh, LimitUnit.REQUESTS, 1, 1, 1)
    try:
        opening = SliceAsk(OrgId(NOBODY), "doctor", "", "", 1, 1, (bucket,), ((Wish(0, 1, 1),),))
        answer = await slices.ask(opening)
        await slices.ask(replace(opening, session=answer.session, seq=2, requests=(), close=True))
        await slices.usage(OrgId(NOBODY))
    except UnavailableError:
        return [Seen(name, "failed", slices.failing, "give its user what `orgate limit acl` prints")]
    return [Seen(name, "ok", f"the library {slices.text.name} runs")]


def _version(name: str, server: Server, info: dict[str, str]) -> Iterator[Seen]:
    valkey = info.get("valkey_version")
    version = valkey or info.get("redis_version", "0")
    what = f"{'Valkey' if valkey else 'Redis'} {version}"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        yield Seen(name, "failed", what, "it must be Redis 6.2 or newer, or Valkey")
    elif server.functions:
        yield Seen(name, "ok", f"{what}, by functions")
    else:
        fix = "allow +fcall +function|load" if numbers >= (7, 0) else ""
        yield Seen(name, "ok", f"{what}, by scripts: functions are not there or not allowed", fix)


def _memory(name: str, info: dict[str, str]) -> Iterator[Seen]:
    policy, most = info.get("maxmemory_policy", "unknown"), int(info.get("maxmemory", "0"))
    used = f"{int(info.get('used_memory', '0')) // 2**20} MiB used"
    if policy == "noeviction":
        yield Seen(name, "ok", f"maxmemory-policy noeviction, {used}")
    elif most:
        seen = f"maxmemory-policy {policy}: with full memory it forgets what was spent"
        yield Seen(name, "failed", seen, "set maxmemory-policy noeviction")
    else:
        seen = f"maxmemory-policy {policy}, without maxmemory; {used}"
        yield Seen(name, "warning", seen, "set maxmemory-policy noeviction before a maxmemory")


def _disk(name: str, info: dict[str, str]) -> Iterator[Seen]:
    if info.get("aof_enabled") == "1" and info.get("aof_last_write_status") != "ok":
        yield Seen(name, "failed", "its append-only file cannot be written", "look at its disk")
    elif info.get("rdb_last_bgsave_status") not in ("ok", None):
        yield Seen(name, "failed", "its last snapshot failed: it may refuse writes", "look at its disk")
    elif info.get("aof_enabled") == "1":
        yield Seen(name, "ok", "keeps an append-only file")
    else:
        yield Seen(name, "ok", "keeps no append-only file: after a crash, workers say what they know")


def _clock(name: str, apart: float) -> Iterator[Seen]:
    if apart > APART_S:
        seen = f"its clock and this machine's are {apart:.1f} s apart: budgets would begin and end by two clocks"
        yield Seen(name, "warning", seen, "let NTP set both")


def _parsed(info: bytes) -> dict[str, str]:
    """`INFO`: lines of `name:value`."""
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
