"""What must hold after any cancellation, whatever was done and whenever: one checker for all of them.

Judged from outside alone: by what the upstream saw, by the budget that is left, by the metrics and by the audit
log as an auditor exports it. Nothing here knows how the gateway does it.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.audit.pack import PackWriter, whole_log
from gateway.audit.verify import verify_pack
from gateway.metric_families import FAMILIES
from tests.integration.gateway.world import Entry
from tests.kit.gateway import RunningGateway, Session
from tests.kit.h2client import H2Client, H2Stream
from tests.kit.upstream import RecordingUpstream

CLIENT = "cancelled_by_client"
SERVED = "served"

PERIOD_S = 31 * 86_400
MAX_TOKENS = 16
"""What `bed.prepare` asks for."""
COUNTED = [7] * 12
"""A prompt in tokens: what is reserved for it is known without counting."""
SETTLED_S = 60.0

UNDER_WAY = ("orgate_in_flight", "orgate_upstream_streams", "orgate_upstream_queue")
assert all(FAMILIES[name].type == "gauge" for name in UNDER_WAY)

_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.e+]+)$")
_ID = re.compile(rb"req-test-\d{6}")
"""What `world.new_request_id` makes; `bed.prepare` puts it into the body."""
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Asked:
    """One request of a test: the client's end, and the outcome its audit entry must have."""

    stream: H2Stream
    request_id: str
    outcome: str = SERVED
    entry: dict[str, Any] = field(default_factory=dict)
    """What else its entry must say."""


def judge_upstream(
    upstream: RecordingUpstream, asked: Iterable[Asked], *, resets: int, connections: int | range
) -> None:
    """Nothing is left open, what was cancelled is reset once, what was not cancelled never is."""
    assert upstream.open_streams == 0
    assert not upstream.faults, upstream.faults
    assert upstream.late_data == 0, "DATA was sent on a stream after its reset"
    assert upstream.resets == resets, f"{upstream.resets} resets, not {resets}"
    accepted = len(upstream.connections)
    assert accepted in (connections if isinstance(connections, range) else (connections,)), accepted
    sent = {each.request_id: each for each in asked}
    for request in upstream.requests:
        assert request.was_reset or request.ended, f"request {request.number} dangles"
        found = _ID.search(request.body)
        whose = sent.get(found[0].decode()) if found else None
        spurious = request.was_reset and whose is not None and whose.outcome == SERVED
        assert not spurious, f"request {request.number} was reset and nobody had cancelled it"


def judge_client(client: H2Client) -> None:
    """The client's own connection has not been touched."""
    assert not client.closed
    assert client.goaway_code is None
    assert not client.faults, client.faults


def judge_entries(asked: Iterable[Asked], entries: Mapping[str, Entry]) -> None:
    """Each request's entry says what became of it, and one that never went upstream costs nothing."""
    for each in asked:
        entry = entries[each.request_id]
        assert entry["outcome"] == each.outcome, entry
        for name, value in each.entry.items():
            assert entry[name] == value, (name, entry)
        if not entry["sent"]:
            assert (entry["prompt_tokens"], entry["completion_tokens"]) == (0, 0), entry


@dataclass(frozen=True)
class Budget:
    """Limits on one model that count everything and refuse nothing.

    `requests` and `tokens` for a month: never reached, and so few that it takes a minute to refill two.
    """

    requests: int = 10_000
    tokens: int = 100_000

    def limits(self) -> list[Entry]:
        return [
            {"unit": "requests", "amount": self.requests, "period_s": PERIOD_S},
            {"unit": "tokens", "amount": self.tokens, "period_s": PERIOD_S},
        ]

    def fault(self, fresh: Asked, entries: Iterable[Entry], since_s: float) -> str:
        """What is wrong with what the answer `fresh` (to `COUNTED`) says is left, '' when it is exact.

        Settled twice, or not at all, or by a token too many, it would differ by more than the refill of the
        `since_s` seconds of its life. `entries`: of every request to this model, `fresh` too.
        """
        sent = [entry for entry in entries if entry["sent"]]
        own = next(entry for entry in sent if entry["request_id"] == fresh.request_id)
        used = sum(e["prompt_tokens"] + e["completion_tokens"] for e in sent if e is not own)
        reserved = len(COUNTED) + MAX_TOKENS
        expected = (self.requests - len(sent), self.tokens - used - reserved)
        headers = fresh.stream.headers
        found = tuple(int(headers[f"x-ratelimit-remaining-{unit}"]) for unit in ("requests", "tokens"))
        slack = [since_s * amount / PERIOD_S for amount in (self.requests, self.tokens)]
        if all(0 <= left - least <= most for left, least, most in zip(found, expected, slack, strict=True)):
            return ""
        return f"remaining {found}, by the audit log {expected}"


async def judge_log(session: Session) -> list[Entry]:
    """The organization's whole log verifies, and the metrics' books come to agree with it: each request that ended
    was settled once and has one entry. When they do, nothing is in flight. Returns the requests' entries."""
    end = asyncio.get_running_loop().time() + SETTLED_S
    while True:
        with tempfile.TemporaryDirectory() as folder:
            lines = await asyncio.to_thread(verified_log, session, Path(folder) / "pack")
        entries = [entry for entry in map(json.loads, lines) if "total_us" in entry]
        ids = Counter(entry["request_id"] for entry in entries)
        assert not (twice := [each for each, count in ids.items() if count > 1]), twice[:10]
        logged = Counter(entry["outcome"] for entry in entries)
        logged["tokens"] = sum(entry["prompt_tokens"] + entry["completion_tokens"] for entry in entries)
        counted = Counter[str]()
        while counted <= logged:  # what was counted and is not in this log is in a later one
            series = await asyncio.to_thread(metrics, session.gateway)
            counted = _counted(series, session.org)
            if counted == logged and in_flight(series) == 0:
                return entries
            assert asyncio.get_running_loop().time() < end, (
                f"metrics count {dict(counted)}, the log {dict(logged)}, in flight {in_flight(series)}"
            )
            await asyncio.sleep(0.1)  # entries come in batches, and workers report once a second


def _counted(series: Series, org: str) -> Counter[str]:
    """What the metrics say of `org`: requests by outcome, and all tokens."""
    counted = Counter({"tokens": 0})
    for labels, value in series.get("orgate_requests_total", []):
        if labels["org"] == org:
            counted[labels["outcome"]] += int(value)
    for labels, value in series.get("orgate_tokens_total", []):
        if labels["org"] == org:
            counted["tokens"] += int(value)
    return counted


Series = dict[str, list[tuple[dict[str, str], float]]]


def metrics(gateway: RunningGateway) -> Series:
    """What `/metrics` shows now: name → (labels, value)."""
    found: Series = {}
    for line in gateway.http.get(gateway.admin_url + "/metrics").raise_for_status().text.splitlines():
        if (match := _SERIES.match(line)) is not None:
            found.setdefault(match[1], []).append((dict(_LABEL.findall(match[2] or "")), float(match[3])))
    return found


def in_flight(series: Series) -> float:
    """Requests that are being served, that are open upstream, or that wait to be. What has none has no sample."""
    return sum(value for name in UNDER_WAY for _, value in series.get(name, ()))


def verified_log(session: Session, folder: Path) -> list[bytes]:
    """The lines of an organization's whole log, exported to `folder` and verified as an auditor does it."""
    path = f"/admin/v1/orgs/{session.org}/audit/"
    note = session.admin("GET", path + "checkpoint").text
    plan = whole_log(session.org, note, session.admin("GET", path + "key").text)
    lines = session.admin("GET", f"{path}log?start=0&end={plan.size}").content
    with PackWriter(folder, plan) as pack:
        pack.write(lines)
        pack.finish(0)
    verdict = verify_pack(folder)
    assert verdict.ok, verdict.faults
    assert verdict.entries == plan.size
    return lines.splitlines()
