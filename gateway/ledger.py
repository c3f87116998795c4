"""What one request has done so far: the mutable notes from which stage 8 settles at any moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.clock import Clock
from gateway.errors import ForbiddenError, GatewayError, LimitExceededError, LimitUnavailableError
from gateway.exchange import (
    Call,
    Hold,
    Intent,
    Outcome,
    Permit,
    Principal,
    Receipt,
    Reservation,
    Route,
    Usage,
    Used,
)
from gateway.inflight import Abort
from gateway.latest import Turn
from gateway.limits.claims import nanodollars
from gateway.limits.refusal import ended
from gateway.limits.tokens import Tokens
from gateway.upstream.relay import Progress, UpstreamRefusalError
from policies.facts import Action
from tenants.ids import OrgId
from tenants.models import Price
from tenants.snapshot import Tenant

NOBODY = OrgId("")
"""The organization of a request that never said who it was: counted in metrics, in nobody's log."""

_UPSTREAM_OUTCOMES = {
    "upstream_error": Outcome.UPSTREAM_ERROR,
    "upstream_busy": Outcome.UPSTREAM_ERROR,
    "upstream_timeout": Outcome.UPSTREAM_TIMEOUT,
}
_ABORTS = {
    Abort.CLIENT: (Outcome.CANCELLED_BY_CLIENT, 499),
    Abort.DEADLINE: (Outcome.UPSTREAM_TIMEOUT, 504),
    Abort.REVOKED: (Outcome.REVOKED, 401),
    Abort.SUPERSEDED: (Outcome.SUPERSEDED, 409),
    Abort.BODY: (Outcome.REFUSED, 408),
    Abort.STOPPING: (Outcome.FAILED, 503),
}


class Ledger:
    """One per request, used by one task. Each `…ed` method notes that a stage is done and hands its value on."""

    __slots__ = (
        "_at",
        "_back_at",
        "_call",
        "_clock",
        "_cut",
        "_error",
        "_head_at",
        "_hold",
        "_limit",
        "_limits",
        "_outcome",
        "_overhead_us",
        "_permit",
        "_policy",
        "_price",
        "_prompt",
        "_request_id",
        "_route",
        "_rule",
        "_sent_at",
        "_start",
        "_status",
        "_task",
        "_tokens",
        "_told",
        "_trace_id",
        "_usage",
        "_waited_us",
        "bytes_out",
        "client_version",
        "intent",
        "principal",
        "progress",
        "prompt_hmac",
        "turn",
    )

    def __init__(
        self, request_id: str, trace_id: str, task: Action, clock: Clock, tokens: Tokens | None = None
    ) -> None:
        """`tokens`: what is known of each model's, shared by all requests; None: nothing."""
        self._clock = clock
        self._tokens = tokens if tokens is not None else Tokens()
        self._start = clock.monotonic_us()
        self._at = int(clock.now() * 1_000_000)
        self._request_id = request_id
        self._trace_id = trace_id
        self._task = task
        self._sent_at = 0
        self._head_at = 0
        self._back_at = 0
        self._waited_us = 0
        self._overhead_us = 0
        self._call: Call | None = None
        self._permit: Permit | None = None
        self._hold: Hold | None = None
        self._route: Route | None = None
        self._outcome = Outcome.FAILED  # what stands if nothing below gets to say otherwise
        self._status = 500
        self._error = ""
        self._rule = ""
        self._limit = ""
        self._limits: tuple[str, ...] = ()
        self._policy = ""
        self._price: Price | None = None
        self._prompt = -1
        self._told = 0
        self._usage: Usage | None = None
        self._cut = False
        self.principal: Principal | None = None
        self.client_version = ""
        self.intent = 0
        self.prompt_hmac = ""
        self.turn: Turn | None = None
        self.progress = Progress(clock.monotonic_us)
        self.bytes_out = 0

    def intended(self, principal: Principal, client_version: str, tenant: Tenant | None) -> Intent:
        """What is known of a request before it is admitted. `tenant`: whose rules will decide."""
        self._policy = tenant.policy_digest if tenant else ""
        return Intent(
            principal.org,
            self._request_id,
            self._at,
            principal.member,
            principal.client,
            self._task,
            self._trace_id,
            client_version,
            self._policy,
            token_id=_key_of(principal),
        )

    def to_send(self, principal: Principal, route: Route) -> Intent:
        """And what is known before it is sent."""
        return Intent(
            principal.org,
            self._request_id,
            self._at,
            principal.member,
            principal.client,
            self._task,
            self._trace_id,
            self.client_version,
            self._policy,
            route.reservation.permit.alias.name,
            route.upstream.name,
            route.model,
            route.credential.version,
            self._rule,
            self._limits,
            _key_of(principal),
        )

    def entered(self, principal: Principal, client_version: str, intent: int) -> None:
        """`intent`: its number in the audit log's spool."""
        self.principal = principal
        self.client_version = client_version
        self.intent = intent

    def decoded(self, call: Call) -> Call:
        self._call = call
        return call

    def permitted(self, permit: Permit) -> Permit:
        self._permit = permit
        self._rule = permit.rule
        return permit

    def judged(self, limits: tuple[str, ...]) -> None:
        """By the limits of these names, whatever they say."""
        self._limits = limits

    def admitted(self, permit: Permit, hold: Hold, price: Price | None = None) -> Reservation:
        """`price`: what its model costs now, None when nobody knows."""
        self._hold = hold
        self._price = price
        return Reservation(permit=permit, hold=hold)

    def routed(self, route: Route) -> Route:
        self._route = route
        return route

    async def waiting(self, pause: Awaitable[object]) -> None:
        """Await `pause`, which is somebody's wish and none of the gateway's own time, however it ends."""
        began = self._clock.monotonic_us()
        try:
            await pause
        finally:
            self._waited_us += self._clock.monotonic_us() - began

    def sending(self) -> None:
        self._sent_at = self._clock.monotonic_us()

    def head_arrived(self) -> None:
        self._head_at = self._back_at = self._clock.monotonic_us()

    def body_arrived(self, size: int) -> None:
        """The whole of an answer that is no stream."""
        self._back_at = self._clock.monotonic_us()
        self.bytes_out += size

    def counting(self, send: Callable[[bytes], Awaitable[None]]) -> Callable[[bytes], Awaitable[None]]:
        def counted(data: bytes) -> Awaitable[None]:
            self.bytes_out += len(data)
            return send(data)

        return counted

    def served(self, bytes_out: int = 0) -> None:
        if self._outcome is Outcome.FAILED:
            self._outcome, self._status = Outcome.SERVED, 200
        self.bytes_out += bytes_out

    def refused_upstream(self, refusal: UpstreamRefusalError) -> None:
        """The model's own no: delivered as it is, and nothing was generated."""
        self._outcome, self._status, self._error = Outcome.UPSTREAM_ERROR, refusal.answer_status, refusal.code
        self.progress.usage = Usage(counted=False)

    def failed(self, error: GatewayError) -> None:
        self._outcome = _UPSTREAM_OUTCOMES.get(error.code, Outcome.REFUSED)
        self._status, self._error = error.status, error.code
        if isinstance(error, ForbiddenError):
            self._rule = error.rule
        elif isinstance(error, LimitExceededError):
            self._limit = error.limit
            if self._cut:
                self._outcome = Outcome.CUT
        elif isinstance(error, LimitUnavailableError):
            self._limit = error.limit

    def aborted(self, reason: Abort | None) -> None:
        """`None`: the server itself is going down and took the request along.

        OpenAI's SDKs close their connection at `[DONE]`, which may be before the upstream's last byte is here:
        such a caller has the whole answer.
        """
        if reason in (Abort.CLIENT, Abort.SUPERSEDED) and self.progress.done:
            self.served()
            return
        self._outcome, self._status = (Outcome.FAILED, 503) if reason is None else _ABORTS[reason]

    def split(self) -> tuple[int, int, int]:
        """Microseconds the gateway took itself, those until it was the request's turn at the upstream, those from
        there to the upstream's head. A hold is in none of them.

        Called when the answer's head is worded: what the gateway took is fixed by it.
        """
        self._overhead_us = self._own_us(self._clock.monotonic_us())
        return self._overhead_us, self._queue_us(self._back_at), self._first_byte_us()

    def _own_us(self, now: int) -> int:
        """All of it but a hold and the wait for the upstream: its head, and the body of what is no stream."""
        waited = (self._back_at or now) - self._sent_at if self._sent_at else 0
        return now - self._start - self._waited_us - waited

    def _queue_us(self, now: int) -> int:
        """From wanting to send to having sent, the last time; it may have waited in vain."""
        if not self._sent_at:
            return 0
        return max((self.progress.sent_us or now) - self._sent_at, 0)

    def _first_byte_us(self) -> int:
        return self._head_at - max(self.progress.sent_us, self._sent_at) if self._head_at else 0

    def meter(self) -> Callable[[], GatewayError | None] | None:
        """What looks at the stream as it passes, for limits that may end it; None when there is none."""
        return self._metered if self._hold is not None and self._hold.metered else None

    def close_up(self) -> bool:
        """Whether `meter` is to look at each event."""
        return self._hold is not None and self._hold.tight

    def _metered(self) -> GatewayError | None:
        claim = self._hold.spending(self._used(self._so_far())) if self._hold is not None else None
        if claim is None:
            return None
        self._cut = True
        return ended(claim)

    def usage(self) -> Usage:
        """What is charged: the provider's figures, else what can be told from what passed.

        Nothing sent costs nothing. Asked once everything is over.
        """
        if self._usage is None:
            self._usage = self._so_far()
            if not self._usage.counted and self._permit is not None and self._usage.total:
                self._tokens.learn(self._permit, self._usage, self.progress.events)
        return self._usage

    def _so_far(self) -> Usage:
        """Never less than before: what a hold was told of is used."""
        if not self.progress.sent or self._permit is None:
            return Usage(counted=False)
        if self.progress.usage is not None:
            return self.progress.usage
        permit, progress = self._permit, self.progress
        if self._prompt < 0:
            self._prompt = self._tokens.of_prompt(permit)
        self._told = max(self._told, self._tokens.of_answer(permit, progress.events, progress.text))
        return Usage(self._prompt, self._told)

    def _used(self, usage: Usage) -> Used:
        size = self._call.size if self._call else 0
        cost = self._cost(usage)
        return Used(
            usage.prompt_tokens, usage.completion_tokens, size + max(self.bytes_out, self.progress.size), cost
        )

    def _cost(self, usage: Usage) -> int:
        price = self._price
        return 0 if price is None else nanodollars(price, usage.prompt_tokens, usage.completion_tokens)

    def settle_hold(self) -> None:
        if self._hold is None:
            return
        if self.progress.sent:
            self._hold.settle(self._used(self.usage()))
        else:
            self._hold.refund()

    def receipt(self) -> Receipt:
        principal, route, usage = self.principal, self._route, self.usage()
        end = self._clock.monotonic_us()
        return Receipt(
            org=principal.org if principal else NOBODY,
            request_id=self._request_id,
            at_us=self._at,
            member=principal.member if principal else "",
            client=principal.client if principal else "",
            action=self._task,
            outcome=self._outcome,
            status=self._status,
            trace_id=self._trace_id,
            model=self._permit.alias.name if self._permit else "",
            upstream=route.upstream.name if route else "",
            upstream_model=route.model if route else "",
            key_version=route.credential.version if route else 0,
            rule=self._rule,
            limit=self._limit,
            limits=self._limits,
            policy=self._policy,
            error=self._error,
            stream=self._call.stream if self._call else False,
            sent=self.progress.sent,
            bytes_in=self._call.size if self._call else 0,
            bytes_out=self.bytes_out,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            tokens_counted=usage.counted,
            overhead_us=self._overhead_us or self._own_us(end),
            first_byte_us=self._first_byte_us(),
            total_us=end - self._start,
            client_version=self.client_version,
            token_id=_key_of(principal) if principal else "",
            held_us=self._waited_us,
            queue_us=self._queue_us(end),
            stream_us=end - self._head_at if self._head_at else 0,
            relay_us=self.progress.relay_us,
            events=self.progress.events,
            cost_nanodollars=self._cost(usage),
            prompt_hmac=self.prompt_hmac,
        )


def _key_of(principal: Principal) -> str:
    """The id of the static key that speaks; '' for an access token: there is another every few minutes."""
    return principal.token_id if principal.scope is not None else ""
