"""Every metric there is: its name, its type, what it says, its labels.

Labels are the organization, its upstream, the task, the outcome and the like, from fixed sets or the tenant list:
never a member or an address. What a caller wrote is in one alone, its program's name and version: bounded in form
and in number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

Key = tuple[str, tuple[str, ...]]

BUCKETS_S: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds of the latency buckets, seconds; one more without bound."""

BOUNDS: Final = (*(str(bound) for bound in BUCKETS_S), "+Inf")
"""The same as values of the label `le`, and the one without bound."""


class Family(Struct, frozen=True):
    """One metric: its type as Prometheus names it, what it says, the names of its labels."""

    type: str
    help: str
    labels: tuple[str, ...]


_UPSTREAM: Final = ("org", "upstream")
_LANE: Final = (*_UPSTREAM, "lane")

FAMILIES: Final[Mapping[str, Family]] = {
    "orgate_requests_total": Family("counter", "Requests that ended, by outcome.", ("org", "task", "outcome")),
    "orgate_bytes_total": Family("counter", "Bytes of request and answer bodies.", ("org", "task", "direction")),
    "orgate_tokens_total": Family("counter", "Tokens settled.", ("org", "task", "kind")),
    "orgate_spend_dollars_total": Family("counter", "Cost of these tokens by the price tables.", ("org", "task")),
    "orgate_unsent_total": Family(
        "counter", "Requests of which no byte reached an upstream.", ("org", "task", "outcome")
    ),
    "orgate_request_seconds": Family("histogram", "From the request's head to its end.", ("org", "task")),
    "orgate_first_byte_seconds": Family(
        "histogram", "From sending to the upstream's first byte.", ("org", "task")
    ),
    "orgate_overhead_seconds": Family("histogram", "Spent in the gateway itself.", ("org", "task")),
    "orgate_fast_cancels_total": Family(
        "counter",
        "Requests whose client was gone before they were sent upstream, or within 5 ms. Many of one version: a"
        " broken build.",
        ("org", "client"),
    ),
    "orgate_in_flight": Family("gauge", "Requests that are being served.", ("org",)),
    "orgate_upstream_connections": Family("gauge", "Connections to an upstream that are open.", _UPSTREAM),
    "orgate_upstream_streams": Family("gauge", "Requests in flight at an upstream.", _UPSTREAM),
    "orgate_upstream_queue": Family("gauge", "Requests that wait for a stream or a connection.", _LANE),
    "orgate_upstream_queued_total": Family("counter", "Requests sent after waiting in line.", _LANE),
    "orgate_upstream_queued_seconds_total": Family("counter", "How long these waited, in all.", _LANE),
    "orgate_upstream_shed_total": Family("counter", "Requests refused because too many waited.", _LANE),
    "orgate_upstream_expired_total": Family("counter", "Requests whose time ended as they waited.", _LANE),
    "orgate_upstream_requests_total": Family("counter", "Requests meant for an upstream.", _UPSTREAM),
    "orgate_upstream_handshakes_total": Family("counter", "Connections made.", _UPSTREAM),
    "orgate_upstream_dial_failures_total": Family("counter", "Connections that could not be made.", _UPSTREAM),
    "orgate_upstream_replaced_total": Family(
        "counter", "Connections given up for their age or the resets they had sent.", _UPSTREAM
    ),
    "orgate_upstream_resets_total": Family(
        "counter", "Streams ended early, by who reset them.", (*_UPSTREAM, "direction")
    ),
    "orgate_upstream_refused_total": Family(
        "counter", "Streams that an upstream declined to process: they are sent again.", _UPSTREAM
    ),
    "orgate_audit_reconcile_difference": Family(
        "gauge",
        "Figures of the last day that was reconciled which differ between log, counters and budgets, and which"
        " nothing explains: requests that are missing in the log, or too many. Anything but 0 is an alarm.",
        ("org",),
    ),
    "orgate_audit_stream_lag_entries": Family(
        "gauge", "Entries of the audit log that streams have not delivered yet.", ("org", "kind")
    ),
    "orgate_audit_stream_lag_seconds": Family(
        "gauge", "How old the oldest of these is, of the stream that is furthest behind.", ("org", "kind")
    ),
    "orgate_audit_stream_entries_total": Family(
        "counter", "Entries that streams have sent, what is sent again included.", ("org", "kind")
    ),
    "orgate_audit_stream_failures_total": Family("counter", "Attempts of streams that failed.", ("org", "kind")),
    "orgate_audit_waiting_receipts": Family(
        "gauge", "Receipts of requests that are not known to be entries of an audit log yet.", ()
    ),
    "orgate_audit_witness_attempts_total": Family(
        "counter",
        "Checkpoints shown to a witness, by what came of it: `cosigned` or `failed`.",
        ("witness", "outcome"),
    ),
    "orgate_audit_witness_late_seconds": Family(
        "gauge",
        "For how long an audit log has had checkpoints without the cosignatures that the policy asks for; 0 when"
        " its newest one has them.",
        ("org",),
    ),
    "orgate_audit_publications_total": Family(
        "counter",
        "Checkpoints published in a `file`, in `git` or by `webhook`, by what came of it: `done` or `failed`.",
        ("place", "outcome"),
    ),
    "orgate_keys_waiting": Family(
        "gauge",
        "1 while the control process has started, and waits for Vault's Transit to unwrap the platform's keys."
        " Until then it answers this, `/livez` and `/readyz`, and all else with 503.",
        (),
    ),
    "orgate_key_rotations_total": Family(
        "counter",
        "Rotations of an upstream's key, by how they ended. `rolled_back`: the new one was refused within the"
        " overlap. `refused`: so was the one from before.",
        (*_UPSTREAM, "outcome"),
    ),
    "orgate_limit_messages_total": Family(
        "counter", "Messages to the store of limits that were answered; each carries many requests.", ("org",)
    ),
    "orgate_limit_resends_total": Family(
        "counter", "Messages that were sent again, because no answer had come.", ("org",)
    ),
    "orgate_limit_refusals_total": Family(
        "counter",
        "Requests that a limit refused, by who said so: the `store`, the `worker` because the store had just said"
        " so, the worker in an `outage` of the store.",
        ("org", "by"),
    ),
    "orgate_limit_accounts_away": Family(
        "gauge", "Accounts of organizations whose store of limits cannot be asked, in all workers together.", ()
    ),
    "orgate_limit_thresholds_total": Family(
        "counter", "Budgets of which so many percent were used, once each window.", ("org", "limit", "percent")
    ),
    "orgate_webhook_attempts_total": Family(
        "counter",
        "Attempts to tell an organization's webhook, by how they ended. `failed`: it is given up.",
        ("org", "outcome"),
    ),
    "orgate_upstream_timeouts_total": Family("counter", "Streams ended because time was over.", _UPSTREAM),
}
