"""What is kept of clients' requests: assertions used, authorization requests pushed, who has sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct


class Pushed(Struct, frozen=True):
    """An authorization request as it was pushed (RFC 9126). `digest`: of its `request_uri`."""

    digest: str
    client: str
    form: Mapping[str, str]
    expires_at: float


class ClientRequests(Protocol):
    """Part of the OAuth store. Durable when a call returns. Errors: `tenants.store.StoreUnavailableError`."""

    async def use(self, client: str, digest: str, expires_at: float, now: float) -> bool:
        """Conditional: write down that the assertion with that id was used. False: it was before. Forgets those
        that have expired."""

    async def push(self, request: Pushed, now: float, most: int) -> bool:
        """False, and nothing is kept, where `most` of that client's wait. Forgets those that have expired."""

    async def take(self, digest: str, client: str, now: float) -> Pushed | None:
        """Conditional: take it away. Of concurrent callers one gets it, and nobody who is another client."""

    async def end_client(self, client: str, now: float) -> int:
        """End every family that was begun with `client`, how many; and whatever could begin one. One
        transaction."""
