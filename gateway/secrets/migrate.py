"""Keys of upstreams from one store to another: copied, read back, and only then cleared from the first.

It can be broken off anywhere and run again: what is there already is recognised by its value.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Iterable
from enum import StrEnum

from msgspec import Struct

from gateway.exchange import Credential
from gateway.secrets.store import NoSuchSecretError, UpstreamKeys
from tenants.ids import OrgId


class Outcome(StrEnum):
    COPIED = "copied"
    THERE = "already there"
    NONE = "no key"
    DIFFERENT = "another key is there"
    """Nothing was changed: which of the two is right, only a person knows."""


class Moved(Struct, frozen=True):
    """What became of one upstream's key."""

    org: OrgId
    upstream: str
    outcome: Outcome


async def copy(
    source: UpstreamKeys, target: UpstreamKeys, upstreams: Iterable[tuple[OrgId, str]]
) -> AsyncIterator[Moved]:
    """Copy each key that `source` has and `target` has not. Raises `StoreUnavailableError`, in the middle too.

    A crash between two keys leaves both stores whole, with some keys in both.
    """
    for org, upstream in upstreams:
        held = await _get(source, org, upstream)
        if held is None:
            yield Moved(org, upstream, Outcome.NONE)
            continue
        there = await _get(target, org, upstream)
        if there is None:
            await target.put(org, upstream, held.secret)
            there = await _get(target, org, upstream)
            yield Moved(org, upstream, Outcome.COPIED if _same(held, there) else Outcome.DIFFERENT)
        else:
            yield Moved(org, upstream, Outcome.THERE if _same(held, there) else Outcome.DIFFERENT)


async def clear(
    source: UpstreamKeys, target: UpstreamKeys, upstreams: Iterable[tuple[OrgId, str]]
) -> AsyncIterator[tuple[OrgId, str]]:
    """Delete from `source` what `target` holds just so, looked at once more. Yields each that was deleted."""
    for org, upstream in upstreams:
        held = await _get(source, org, upstream)
        if held is not None and _same(held, await _get(target, org, upstream)):
            await source.delete(org, upstream)
            yield org, upstream


async def _get(store: UpstreamKeys, org: OrgId, upstream: str) -> Credential | None:
    try:
        return await store.get(org, upstream)
    except NoSuchSecretError:
        return None


def _same(one: Credential, other: Credential | None) -> bool:
    return other is not None and hmac.compare_digest(one.secret.reveal(), other.secret.reveal())
