"""The one path of a request. Straight-line code: the order is the text (see docs/architecture.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from msgspec import structs

from gateway.audit.log import ReceiptSink
from gateway.authorize.stage import authorize, resolve, visible_models
from gateway.clock import Clock
from gateway.dpop import Presented
from gateway.errors import GatewayError, KeyRefusedError, UnavailableError, UpstreamTimeoutError
from gateway.exchange import Call, Credential, Headers, Permit, Principal, Receipt, Reservation, Route
from gateway.inflight import Abort, Abortable, InFlight
from gateway.lane import lane_of_call
from gateway.latest import Latest, Place
from gateway.ledger import Ledger
from gateway.limits.claims import limits_for, price_of
from gateway.limits.store import LimitStore
from gateway.limits.tokens import Tokens
from gateway.upstream.auth.authorizer import NO_KEY
from gateway.upstream.relay import METER_EVENTS, Relay, UpstreamRefusalError, is_event_stream, pass_on, read_answer
from policies.facts import Action
from policies.holds import hold_ms
from policies.lanes import Lane
from tenants.ids import PLATFORM, OrgId
from tenants.models import CredentialKind, Durability, ModelAlias
from tenants.snapshot import Snapshot, Tenant

JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")


class Inbound(Abortable, Protocol):
    """One request as the edge hands it over. `body` may be awaited once; it enforces the size cap.

    `arrived` and `ends` are the event loop's clock, seconds: when its head came, and when it is ended by
    `abort`; `left_s` seconds from now. `end_within`: not later than so many seconds after it arrived. `check`
    raises what is wrong with its head. `document`: what the caller is typing in, if it says; `lane`: the one it
    asks to wait in; `presented`: the DPoP proof it shows, if any.
    """

    @property
    def request_id(self) -> str: ...
    @property
    def trace_id(self) -> str: ...
    @property
    def authorization(self) -> bytes | None: ...
    @property
    def presented(self) -> Presented | None: ...
    @property
    def host(self) -> str: ...
    @property
    def aborted(self) -> Abort | None: ...
    @property
    def client_version(self) -> str: ...
    @property
    def document(self) -> bytes | None: ...
    @property
    def lane(self) -> Lane: ...
    @property
    def arrived(self) -> float: ...
    @property
    def ends(self) -> float: ...
    def check(self) -> None: ...
    def end_within(self, seconds: float) -> None: ...
    def left_s(self) -> float: ...
    async def body(self) -> bytes: ...


class Answer(Protocol):
    """Where the response goes. Nothing is retried; a client that is gone ends the request by `abort`."""

    def start(self, status: int, headers: Headers) -> Awaitable[None]: ...
    def send(self, data: bytes) -> Awaitable[None]: ...
    def finish(self, data: bytes) -> Awaitable[None]: ...


class Authenticate(Protocol):
    """Stage 1: who an access token speaks for, checked without leaving the process."""

    def authenticate(
        self, authorization: bytes | None, host: str, snapshot: Snapshot, presented: Presented | None = None
    ) -> Principal: ...


class Keys(Protocol):
    """Leased upstream keys: `peek` never waits, `lease` reads the store when it must."""

    def peek(self, org: OrgId, upstream: str, key_version: int) -> Credential | None: ...
    async def lease(self, org: OrgId, upstream: str, key_version: int) -> Credential: ...
    def refused(self, org: OrgId, upstream: str, version: int) -> None: ...
    def outdone(self, org: OrgId, upstream: str, version: int) -> None: ...
    async def other(self, org: OrgId, upstream: str, version: int, key_version: int) -> Credential | None: ...


class World(Protocol):
    """Where the current snapshot is found. `accepting` is False while this worker may not serve."""

    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def accepting(self) -> bool: ...


class Pipeline:
    """Eight stages. Stateless but for what it is given and who types where (`Latest`); one per worker, shared by
    all its requests."""

    def __init__(
        self,
        *,
        world: World,
        authn: Authenticate,
        limits: LimitStore,
        keys: Keys,
        relay: Relay,
        receipts: ReceiptSink,
        in_flight: InFlight,
        observe: Callable[[Receipt], None],
        clock: Clock,
        max_in_flight: int,
        keys_announced: bool = True,
        tokens: Tokens | None = None,
        hash_prompt: Callable[[OrgId, Call], Awaitable[str]] | None = None,
    ) -> None:
        """`keys_announced` False: keys are put there by other hands, and an upstream's `key_version` is silent.
        `tokens`: what is known of each model's already; None: nothing. `hash_prompt`: for the audit log of
        organizations that want it."""
        self._hash_prompt = hash_prompt
        self._world = world
        self._authn = authn
        self._limits = limits
        self._keys = keys
        self._keys_announced = keys_announced
        self._relay = relay
        self._receipts = receipts
        self._in_flight = in_flight
        self._observe = observe
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._latest = Latest()
        self._tokens = tokens if tokens is not None else Tokens()

    async def complete(
        self, task: Action, inbound: Inbound, decode: Callable[[bytes], Call], answer: Answer
    ) -> None:
        """Serve one call to a model. Raises `GatewayError` with everything settled; the edge words it."""
        ledger = Ledger(inbound.request_id, inbound.trace_id, task, self._clock, self._tokens)
        try:
            principal, snapshot = self._enter(inbound, ledger)
            tenant = resolve(principal, snapshot)
            if tenant.org.deadline_ms:
                inbound.end_within(tenant.org.deadline_ms / 1000)
            call = ledger.decoded(decode(await inbound.body()))
            permit = ledger.permitted(authorize(principal, tenant, call))
            if tenant.org.audit_prompt_hash and self._hash_prompt is not None:
                ledger.prompt_hmac = await self._hash_prompt(tenant.id, call)
            if tenant.org.supersede or tenant.org.holds:
                await self._wait_turn(permit, inbound, ledger)
            reservation = await self._admit(permit, snapshot.tenants.get(PLATFORM), ledger)
            route = ledger.routed(await self._route(reservation, inbound))
            if tenant.org.durability is Durability.STRICT:
                await self._receipts.secure(ledger.intent, ledger.to_send(principal, route))
            last, head = await self._answered(route, inbound, answer, ledger)
            ledger.served()
        except GatewayError as error:
            ledger.failed(error)
            raise
        except asyncio.CancelledError:
            ledger.aborted(inbound.aborted)
            raise
        finally:
            self._settle(inbound, ledger)
        if head is not None:
            await answer.start(200, head)
        await answer.finish(last)

    async def list_models(
        self, inbound: Inbound, answer: Answer, render: Callable[[Sequence[ModelAlias]], bytes]
    ) -> None:
        """Stages 1, 2, 4 and 8 for a listing: nothing goes upstream and no limit is touched."""
        ledger = Ledger(inbound.request_id, inbound.trace_id, Action.LIST_MODELS, self._clock, self._tokens)
        try:
            principal, snapshot = self._enter(inbound, ledger)
            body = render(visible_models(principal, resolve(principal, snapshot)))
            ledger.served(len(body))
        except GatewayError as error:
            ledger.failed(error)
            raise
        finally:
            self._settle(inbound, ledger)
        await answer.start(200, [*_identity(inbound), JSON])
        await answer.finish(body)

    def _enter(self, inbound: Inbound, ledger: Ledger) -> tuple[Principal, Snapshot]:
        """Stage 1, and the room this request needs: a place in flight and one in the audit log."""
        if not self._world.accepting:
            raise UnavailableError("the gateway is not ready to serve", retry_after_s=1)
        if self._in_flight.closed:
            raise UnavailableError("the gateway is stopping; send the request again", retry_after_s=1)
        if self._in_flight.count >= self._max_in_flight:
            raise UnavailableError("the gateway has too many requests in flight", retry_after_s=1)
        snapshot = self._world.snapshot
        principal = self._authn.authenticate(inbound.authorization, inbound.host, snapshot, inbound.presented)
        tenant = snapshot.tenants.get(principal.org)
        weight = 1 if tenant is None else tenant.org.weight
        if not self._in_flight.has_room(principal.org, self._max_in_flight, weight):
            # A body may be minutes in coming, and no limit is asked before it is there.
            raise UnavailableError("your organization has too many requests in flight", retry_after_s=1)
        client_version = inbound.client_version
        intent = self._receipts.admit(ledger.intended(principal, client_version, tenant))
        ledger.entered(principal, client_version, intent)
        self._in_flight.enter(principal.org, principal.member, inbound, weight)
        inbound.check()
        return principal, snapshot

    async def _wait_turn(self, permit: Permit, inbound: Inbound, ledger: Ledger) -> None:
        """What an organization may ask for before anything is claimed or sent: that the latest keystroke wins,
        and that a client which abandons at once is kept a moment. A cancel in here costs nothing.

        A hold is counted from the request's arrival.
        """
        org, principal = permit.tenant.org, permit.principal
        if org.supersede and inbound.document is not None and permit.call.task is Action.COMPLETE:
            place = Place(org.id, principal.member, principal.client, inbound.client_version, inbound.document)
            ledger.turn = self._latest.enter(place, inbound, inbound.arrived)
            await ledger.turn.alone()
        if held_ms := hold_ms(org.holds, inbound.client_version):
            left = inbound.arrived + held_ms / 1000 - asyncio.get_running_loop().time()
            if left > 0:
                await ledger.waiting(asyncio.sleep(left))

    async def _admit(self, permit: Permit, platform: Tenant | None, ledger: Ledger) -> Reservation:
        """Stage 5. Between the grant and `ledger.admitted` nothing awaits: a cancel cannot lose a hold."""
        limits = limits_for(permit, platform, self._clock.now)
        claims = limits.claims(permit, platform, self._tokens)
        ledger.judged(limits.named(claims))
        price = price_of(permit, platform)
        hold = self._limits.take(claims)
        if hold is None:
            hold = await self._limits.reserve(claims)
        return ledger.admitted(permit, hold, price)

    async def _route(self, reservation: Reservation, inbound: Inbound) -> Route:
        """Stage 6: the deployment behind the alias and its leased key, and by when it must be over."""
        permit = reservation.permit
        upstream = permit.tenant.upstreams.get(permit.alias.upstream)
        keyless = upstream is not None and upstream.auth is CredentialKind.NONE
        if upstream is None or (upstream.key_version == 0 and self._keys_announced and not keyless):
            raise UnavailableError(
                f"the model '{permit.alias.name}' has no upstream with a key; an admin must set one",
                retry_after_s=30,
            )
        wanted = upstream.key_version
        credential = NO_KEY if keyless else self._keys.peek(permit.tenant.id, upstream.name, wanted)
        if credential is None:
            credential = await self._keys.lease(permit.tenant.id, upstream.name, wanted)
        if upstream.total_timeout_ms:
            inbound.end_within(upstream.total_timeout_ms / 1000)
        if inbound.left_s() <= 0:
            # Its timer may be waiting for this very turn of the loop: what is late is not sent all the same.
            raise UpstreamTimeoutError("the request took longer than it may")
        return Route(
            reservation=reservation,
            upstream=upstream,
            model=permit.alias.model,
            credential=credential,
            ends=inbound.ends,
            lane=lane_of_call(permit.call, inbound.lane),
            weight=permit.tenant.org.weight,
        )

    async def _answered(
        self, route: Route, inbound: Inbound, answer: Answer, ledger: Ledger
    ) -> tuple[bytes, Headers | None]:
        """Stage 7. Returns what is still to be sent once everything is settled: the last bytes, and for an
        answer that is not a stream its head."""
        call = route.reservation.permit.call
        ledger.sending()
        try:
            try:
                response = await self._relay.open(route, ledger.progress)
            except KeyRefusedError:
                # Nothing was generated and nothing has gone to the caller: in a rotation another key may be good.
                refused = route
                route = ledger.routed(await self._with_other_key(route))
                response = await self._relay.open(route, ledger.progress)
                # Now it is known that the key was at fault, and not this request, whose author may be anybody.
                self._keys.outdone(refused.upstream.org, refused.upstream.name, refused.credential.version)
        except UpstreamRefusalError as refusal:
            ledger.head_arrived()
            ledger.refused_upstream(refusal)
            await answer.start(refusal.answer_status, self._head(inbound, ledger, route, JSON))
            return refusal.body, None
        ledger.head_arrived()
        try:
            if call.stream and is_event_stream(response):
                await answer.start(200, self._head(inbound, ledger, route, EVENT_STREAM))
                send, meter = ledger.counting(answer.send), ledger.meter()
                every = 1 if meter is not None and ledger.close_up() else METER_EVENTS
                return await pass_on(response, call, ledger.progress, send, meter, every=every), None
            body = await read_answer(response, ledger.progress)
            ledger.body_arrived(len(body))
            return body, self._head(inbound, ledger, route, JSON)
        finally:
            response.cancel()  # resets the upstream's stream if it has not ended

    async def _with_other_key(self, route: Route) -> Route:
        """The same with the newer key, or with the one that a rotation keeps. Raises what is to be handled when
        there is none."""
        refused = KeyRefusedError("the model refused the organization's key; an admin must set a new one")
        upstream, version = route.upstream, route.credential.version
        if upstream.auth is CredentialKind.NONE:
            raise refused
        self._keys.refused(upstream.org, upstream.name, version)
        tenant = self._world.snapshot.tenants.get(upstream.org)
        now = tenant.upstreams.get(upstream.name) if tenant is not None else None
        if now is None or (now.base_url, now.auth) != (upstream.base_url, upstream.auth):
            raise refused  # it is gone, or leads elsewhere: a key goes to the server that it was given for
        other = await self._keys.other(upstream.org, upstream.name, version, now.key_version)
        if other is None:
            raise refused
        return structs.replace(route, credential=other)

    def _settle(self, inbound: Inbound, ledger: Ledger) -> None:
        """Stage 8, for every outcome. It never awaits, so nothing can cancel it.

        A kill -9 before `append` leaves a request whose entry says `unknown`; after it, the receipt is in the
        kernel's page cache and reaches the log whatever becomes of this process.
        """
        ledger.settle_hold()
        if ledger.turn is not None:
            ledger.turn.end()
        receipt = ledger.receipt()
        self._observe(receipt)
        if ledger.principal is not None:
            self._in_flight.leave(ledger.principal.org, ledger.principal.member, inbound)
            self._receipts.append(receipt, ledger.intent)

    def _head(self, inbound: Inbound, ledger: Ledger, route: Route, content_type: tuple[bytes, bytes]) -> Headers:
        own_us, queue_us, upstream_us = ledger.split()
        own_ms = b"%.3f" % (own_us / 1000)
        # W3C Server Timing, milliseconds. What comes after the head is in the audit entry.
        waits = (queue_us / 1000, upstream_us / 1000)
        return [
            *_identity(inbound),
            content_type,
            _NO_STORE,
            (b"x-orgate-model", route.model.encode("latin-1", "replace")),
            (b"x-orgate-upstream", route.upstream.name.encode()),
            (b"x-orgate-overhead-ms", own_ms),
            (b"server-timing", b"gateway;dur=%b, queue;dur=%.3f, upstream;dur=%.3f" % (own_ms, *waits)),
            *route.reservation.hold.headers(),
        ]


def _identity(inbound: Inbound) -> Headers:
    return [(b"x-request-id", inbound.request_id.encode())]
