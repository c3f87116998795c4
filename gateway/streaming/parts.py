"""Puts streams together: part of the composition root."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from urllib.parse import urlsplit

from gateway.audit.formats.context import Context
from gateway.audit.reader import LogReader
from gateway.clock import Clock
from gateway.control_metrics import ControlMetrics
from gateway.secret import Secret
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError, StreamSecrets
from gateway.settings import Settings
from gateway.streaming.http import NdjsonSender, OtlpSender, SplunkSender
from gateway.streaming.post import Receiver
from gateway.streaming.s3 import S3Sender
from gateway.streaming.sender import Sender, SendError
from gateway.streaming.streams import Streams, Tells
from gateway.streaming.syslog import SyslogSender
from gateway.upstream.addresses import Network
from gateway.upstream.dial import Resolve, resolve
from tenants.sql.store import SqlControlStore
from tenants.streams import AuditStream, StreamKind


class Senders:
    """Makes the sender of a stream. `allowed`: networks that receivers may be in besides public ones."""

    def __init__(
        self,
        secrets: StreamSecrets,
        ctx: Context,
        clock: Clock,
        *,
        allowed: Sequence[Network] = (),
        resolver: Resolve = resolve,
    ) -> None:
        self._secrets = secrets
        self._ctx = ctx
        self._clock = clock
        self._allowed = tuple(allowed)
        self._resolver = resolver

    async def make(self, stream: AuditStream) -> Sender:
        """Raises `SendError` for a secret that is missing or cannot be read."""
        secret = await self._secret(stream)
        if stream.kind is StreamKind.SYSLOG:
            return SyslogSender(stream, secret, self._ctx, allowed=self._allowed, resolver=self._resolver)
        receiver = Receiver(stream, allowed=self._allowed, resolver=self._resolver)
        match stream.kind:
            case StreamKind.S3:
                return S3Sender(stream, secret, receiver, self._clock.now)
            case StreamKind.OTLP:
                return OtlpSender(stream, secret, receiver, self._ctx)
            case StreamKind.NDJSON:
                return NdjsonSender(stream, secret, receiver, self._ctx)
        return SplunkSender(stream, secret, receiver, self._ctx, channel=str(uuid.uuid4()))

    async def _secret(self, stream: AuditStream) -> Secret | None:
        if not stream.secret_version:  # what is kept under its name was another's
            if stream.kind in (StreamKind.SPLUNK, StreamKind.S3):
                raise SendError("its secret is not set")
            return None
        try:
            return await self._secrets.get(stream.org, stream.name)
        except NoSuchSecretError:
            raise SendError("its secret is gone: set it again") from None
        except StoreUnavailableError:
            raise SendError("its secret cannot be read now") from None


def streams_of(
    settings: Settings,
    store: SqlControlStore,
    reader: LogReader,
    *,
    secrets: StreamSecrets,
    metrics: ControlMetrics,
    tell: Tells,
    clock: Clock,
) -> Streams:
    """Made, and told of what is committed. Whoever made it awaits its `run`."""
    ctx = Context(host=urlsplit(settings.server.url).hostname or "")
    senders = Senders(secrets, ctx, clock, allowed=settings.upstreams.networks())
    streams = Streams(
        store.streams,
        reader,
        senders.make,
        ctx=ctx,
        clock=clock,
        random=random.random,
        metrics=metrics,
        tell=tell,
        behind_s=settings.audit.stream_behind_s,
    )
    store.subscribe(streams.wake)
    return streams
