"""Host names that belong to an organization only narrow: a credential of another one is refused there."""

from __future__ import annotations

from tenants.ids import OrgId
from tenants.snapshot import Snapshot


def is_elsewhere(snapshot: Snapshot, host: str, org: OrgId) -> bool:
    """Whether `host`, as a Host header or `:authority` names it, is another organization's than `org`."""
    owner = snapshot.hosts.get(host) or snapshot.hosts.get(host_name(host))
    return owner is not None and owner != org


def host_name(host: str) -> str:
    """The name in a Host header or `:authority`: without port and final dot, in lower case."""
    name, _, port = host.rpartition(":")
    if not name or not port.isdecimal():
        name = host
    return name.rstrip(".").lower()
