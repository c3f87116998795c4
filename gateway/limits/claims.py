"""Which limits apply to a permitted call, and how much it asks of each. Pure, but for what it remembers.

| unit | a call asks for |
|---|---|
| requests, concurrency | 1 |
| input tokens | its prompt, as `gateway.limits.tokens` estimates it |
| output tokens | as many answers as it wants, each as long as it says or else as the alias says |
| tokens | both |
| bytes | its own, and for each token of the answers `STREAM_BYTES` or `ANSWER_BYTES` |
| spend | both by the price table, rounded up |

What was used is settled afterwards, and what was asked for too much comes back then.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.errors import PriceUnknownError
from gateway.exchange import LIMITS_MAX, Claim, Permit, Principal
from gateway.limits.refusal import OF_PLATFORM
from gateway.limits.tokens import MOST, Tokens
from gateway.limits.windows import window_at
from gateway.quota import Quota
from policies.facts import Action
from tenants.ids import PLATFORM, OrgId
from tenants.models import Limit, LimitScope, LimitUnit, ModelAlias, OnEnd, Price
from tenants.snapshot import Tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from gateway.quota import Key

ANSWER_BYTES = 16
"""Of a whole answer for each token: text takes 4, but escaped or in another script up to four times as many."""

STREAM_BYTES = 256
"""Of a stream for each token: each may be an event of its own."""

VECTOR_BYTES = 65_536
"""Of an embedding's answer: one vector of 3,072 numbers, in decimal."""

MILLION = 1_000_000
"""Prices are for so many tokens."""

REMEMBERED = 4_096
"""Callers of one organization whose claims are kept ready, by member, model, client and teams; and as many
organizations."""

_ALWAYS_ONE = frozenset({LimitUnit.REQUESTS, LimitUnit.CONCURRENCY})
_INPUT = frozenset({LimitUnit.TOKENS, LimitUnit.INPUT_TOKENS, LimitUnit.SPEND})

# Each of these is looked up for every request, and a module's own name is found at once.
_TOKENS, _INPUT_TOKENS, _OUTPUT_TOKENS = LimitUnit.TOKENS, LimitUnit.INPUT_TOKENS, LimitUnit.OUTPUT_TOKENS
_FINISH, _EMBED = OnEnd.FINISH, Action.EMBED

Who = tuple[str, str, str, tuple[str, ...]]


def _names(quotas: Sequence[Quota]) -> tuple[str, ...]:
    names = [
        OF_PLATFORM + quota.limit
        if quota.org == PLATFORM and not quota.limit.startswith(OF_PLATFORM)
        else quota.limit
        for quota in quotas
    ]
    return tuple(dict.fromkeys(names))[:LIMITS_MAX]


class CallerLimits:
    """The limits that apply to one caller, and `names` of the first few, each once, the platform's with
    `platform/` before them."""

    __slots__ = ("_counts_prompt", "_differing", "_last", "_one_each", "_others", "_usual", "names")

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self.names = _names(quotas)
        self._one_each = tuple([Claim(quota, 1) for quota in quotas])
        # The places of those whose cost differs from call to call.
        self._differing = tuple([n for n, quota in enumerate(quotas) if quota.unit not in _ALWAYS_ONE])
        self._counts_prompt = any(quota.unit in _INPUT for quota in quotas)
        # Nearly all count requests and tokens, and nothing is cut.
        self._usual = all(quotas[n].unit is _TOKENS and quotas[n].on_end is _FINISH for n in self._differing)
        # And nearly all have one on tokens, after those on requests.
        last = len(quotas) - 1
        self._last = quotas[last] if self._usual and self._differing == (last,) else None
        self._others = self._one_each[:-1]

    def claims(self, permit: Permit, platform: Tenant | None, tokens: Tokens) -> tuple[Claim, ...]:
        """One for each. A limit that this call cannot touch makes no claim: output tokens of an embedding, spend
        at a price of 0.

        Raises `PriceUnknownError` when a limit counts spend and the model has no price: it would be free, and the
        limit would not be one.
        """
        one_each = self._one_each
        if not self._differing:
            return one_each
        prompt = tokens.of_prompt(permit, roughly=True) if self._counts_prompt else 0
        answer = output_tokens(permit)
        both = prompt + answer
        if self._last is not None and 0 < both <= MOST:
            return (*self._others, Claim(self._last, both))
        claims = list(one_each)
        if self._usual and 0 < both <= MOST:
            for n in self._differing:
                claims[n] = Claim(one_each[n].quota, both)
            return tuple(claims)
        for n in self._differing:
            quota = one_each[n].quota
            cost, sent, step = _cost(permit, platform, quota, prompt, answer)
            least = -1 if quota.on_end is _FINISH else _least(permit, quota, cost, sent + step)
            claims[n] = Claim(quota, cost, least)
        return tuple([claim for claim in claims if claim.cost])

    def named(self, claims: Sequence[Claim]) -> tuple[str, ...]:
        """`names` of those that claims were made for."""
        return self.names if len(claims) == len(self._one_each) else _names([claim.quota for claim in claims])


_NONE = CallerLimits(())


class _Org:
    """What is ready for one organization's callers, as long as nothing has changed and no window has ended.
    `quotas`: what several of them share is one object, so that nobody has to compare it."""

    __slots__ = ("callers", "ends_s", "lately", "platform", "quotas", "tenant")

    def __init__(self, tenant: Tenant, platform: Tenant | None) -> None:
        self.tenant = tenant
        self.platform = platform
        self.ends_s: int | None = None
        self.callers: dict[Who, CallerLimits] = {}
        # By the principal's `id`: one object for a token, and for what else `who` has there is nothing to hash.
        self.lately: dict[int, tuple[Principal, ModelAlias, CallerLimits]] = {}
        self.quotas: dict[Key, Quota] = {}

    def ready(self, permit: Permit, now_s: float) -> CallerLimits:
        quotas = [self.quotas.setdefault(quota.key, quota) for quota in _quotas(permit, self.platform, now_s)]
        ends = [quota.ends_s for quota in quotas if quota.ends_s]
        if ends:
            self.ends_s = min(ends) if self.ends_s is None else min(self.ends_s, *ends)
        return CallerLimits(quotas)


_ready: dict[OrgId, _Org] = {}


def limits_for(permit: Permit, platform: Tenant | None, now: Callable[[], float]) -> CallerLimits:
    """Each limit of the permit's organization that applies to this member, their teams, model, client and
    upstream, and each of the platform's. `now`: Unix seconds; only budgets ask for it."""
    tenant = permit.tenant
    if not tenant.limits and (platform is None or not platform.limits):
        return _NONE
    org = _ready.get(tenant.id)
    # Another object when anything of it has changed: its limits, prices, upstreams, weight or time zone.
    if (
        org is None
        or org.tenant is not tenant
        or org.platform is not platform
        or (org.ends_s is not None and now() >= org.ends_s)
    ):
        if len(_ready) >= REMEMBERED:
            _ready.clear()
        org = _ready[tenant.id] = _Org(tenant, platform)
    principal, alias = permit.principal, permit.alias
    lately = org.lately.get(id(principal))
    if lately is not None and lately[0] is principal and lately[1] is alias:
        return lately[2]
    who = principal.member, alias.name, principal.client, principal.teams
    caller = org.callers.get(who)
    if caller is None:
        if len(org.callers) >= REMEMBERED:
            org.callers.clear()
            org.quotas.clear()
            org.lately.clear()
        caller = org.callers[who] = org.ready(permit, now())
    if len(org.lately) >= REMEMBERED:
        org.lately.clear()
    org.lately[id(principal)] = principal, alias, caller
    return caller


def counts_tokens(tenants: Iterable[Tenant]) -> bool:
    """Whether any limit of theirs needs to know how long a prompt is."""
    return any(limit.unit in _INPUT for tenant in tenants for limit in tenant.limits)


def price_of(permit: Permit, platform: Tenant | None) -> Price | None:
    """What the call's model costs: by the organization's own table, else by the platform's."""
    model = permit.alias.model
    price = permit.tenant.prices.get(model)
    return price if price is not None or platform is None else platform.prices.get(model)


def nanodollars(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Rounded up."""
    return -(-(input_tokens * price.input + output_tokens * price.output) // MILLION)


def origin_of(url: str) -> str:
    """Where a URL leads (RFC 6454 section 6.2): scheme, host and a port that is not the scheme's own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port
    name = _address(host) if ":" in host else host
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in (None, usual) else "")


def _address(host: str) -> str:
    """An IPv6 address as RFC 5952 writes it, and the IPv4 one that is mapped into it: whoever spells theirs in
    another way is at the same place."""
    try:
        address = IPv6Address(host)
    except ValueError:
        return f"[{host}]"
    return f"[{address}]" if address.ipv4_mapped is None else str(address.ipv4_mapped)


def output_tokens(permit: Permit) -> int:
    """As many as may come. An embedding has none."""
    call = permit.call
    if call.task is _EMBED:
        return 0
    each = call.max_tokens
    if each is None:
        each = permit.alias.max_tokens
    return each if call.answers == 1 and each <= MOST else min(call.answers * each, MOST)


def _quotas(permit: Permit, platform: Tenant | None, now_s: float) -> Iterator[Quota]:
    org = permit.tenant.org
    for limit in permit.tenant.limits:
        if subjects := _subjects(limit, permit):  # most of many are about others, and a window takes 10 µs
            window = window_at(limit.window, org.timezone, now_s)
            for subject in subjects:
                yield _quota(limit, org.id, limit.name, subject, window)
    if platform is None or platform.id == org.id:
        return
    for limit in platform.limits:
        # Never where the organization says it is: its owners would begin a budget anew by moving.
        window = window_at(limit.window, platform.org.timezone, now_s)
        if limit.scope is LimitScope.ORG:
            if limit.subject in ("", org.id):
                yield _quota(limit, org.id, OF_PLATFORM + limit.name, "", window, weight=org.weight)
        elif limit.scope is LimitScope.UPSTREAM:
            upstream = permit.tenant.upstreams.get(permit.alias.upstream)
            origin = "" if upstream is None else origin_of(upstream.base_url)
            if origin and (not limit.subject or origin_of(limit.subject) == origin):
                # One bucket for all organizations.
                yield _quota(limit, PLATFORM, limit.name, origin, window)


def _quota(
    limit: Limit, org: OrgId, name: str, subject: str, window: tuple[int, int], *, weight: int = 1
) -> Quota:
    starts_s, ends_s = window
    return Quota(
        org=org,
        limit=name,
        scope=limit.scope,
        subject=subject,
        unit=limit.unit,
        amount=min(limit.amount * weight, MOST),
        burst=min((limit.burst or limit.amount) * weight, MOST),
        period_s=limit.period_s,
        starts_s=starts_s,
        ends_s=ends_s,
        on_outage=limit.on_outage,
        on_end=limit.on_end,
        notify_at=min(limit.notify_at, default=0) if ends_s else 0,
    )


def _subjects(limit: Limit, permit: Permit) -> Sequence[str]:
    """Whose buckets this call draws from; none: the limit is about somebody else."""
    found: Sequence[str]
    match limit.scope:
        case LimitScope.ORG:
            return ("",)
        case LimitScope.TEAM:
            found = permit.principal.teams
        case LimitScope.MEMBER:
            found = (permit.principal.member,)
        case LimitScope.MODEL:
            found = (permit.alias.name,)
        case LimitScope.CLIENT:
            found = (permit.principal.client,)
        case LimitScope.UPSTREAM:
            found = (permit.alias.upstream,)
    return found if not limit.subject else [subject for subject in found if subject == limit.subject]


def _cost(permit: Permit, platform: Tenant | None, quota: Quota, prompt: int, answer: int) -> tuple[int, int, int]:
    """Of the whole call, of what it sends, and of one more token."""
    unit = quota.unit
    if unit is _TOKENS:
        return min(prompt + answer, MOST), prompt, 1
    if unit is _INPUT_TOKENS:
        return prompt, prompt, 0
    if unit is _OUTPUT_TOKENS:
        return answer, 0, 1
    if unit is LimitUnit.BYTES:
        call = permit.call
        each = STREAM_BYTES if call.stream else ANSWER_BYTES
        coming = answer * each if answer else VECTOR_BYTES
        return min(call.size + coming, MOST), call.size, each
    price = price_of(permit, platform)
    if price is None:
        raise PriceUnknownError(
            f"limit '{quota.limit}' counts money and the model '{permit.alias.name}' has no price; an admin must"
            " set one",
            retry_after_s=30,
        )
    sent = nanodollars(price, prompt, 0)
    return min(nanodollars(price, prompt, answer), MOST), sent, nanodollars(price, 0, 1)


def _least(permit: Permit, quota: Quota, cost: int, begun: int) -> int:
    """With how much the call is admitted (see `OnEnd`), -1: with all of it. An answer that is no stream cannot be
    ended in its middle: for one `CUT` is `FINISH`."""
    if quota.on_end is OnEnd.DENY_NEXT:
        return min(1, cost)
    if quota.on_end is OnEnd.CUT and permit.call.stream:
        return min(begun, cost)
    return -1
