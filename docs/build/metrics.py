"""metrics.md: every family of the Prometheus exposition."""

from __future__ import annotations

from docs.build.markdown import code, codes, page, table
from gateway.client_version import UNKNOWN
from gateway.counters import CLIENTS_MAX, OTHER
from gateway.exchange import Outcome
from gateway.metric_families import BUCKETS_S, FAMILIES
from policies.facts import Action
from policies.lanes import LANE_NAMES


def render() -> str:
    return page(
        "Metrics",
        "`gateway/metric_families.py`",
        "`GET /metrics` on the admin listener, Prometheus text format. Operators need a token; a scraper on"
        " the same machine (loopback, no `Forwarded` or `X-Forwarded-For`) needs none. The control process"
        " sums over all workers, those that ended included, so no counter falls while it lives; a restart of"
        " it begins at zero. Gauges are of this moment, summed over the workers that live.",
        table(
            ("name", "type", "labels", "meaning"),
            [(code(name), one.type, codes(one.labels), one.help) for name, one in FAMILIES.items()],
        ),
        "## Labels",
        table(
            ("label", "values"),
            [
                ("`org`", "The organization's id; empty for requests that never said who they were (401)."),
                ("`task`", codes(action.value for action in Action)),
                ("`outcome`", codes(outcome.value for outcome in Outcome)),
                ("`direction`", "`in`, `out`; of resets `sent` (by the gateway), `received`."),
                ("`upstream`", "The name of one of the organization's upstreams."),
                ("`lane`", codes(LANE_NAMES) + ": see [data-plane.md](data-plane.md)."),
                ("`kind`", "`prompt`, `completion`"),
                (
                    "`client`",
                    f"The program's `name/version` as it gives it, at most {CLIENTS_MAX} of an organization"
                    f" and worker, then `{OTHER}`; `{UNKNOWN}` when it gives none: see"
                    " [data-plane.md](data-plane.md).",
                ),
            ],
        ),
        "No label is a member or an address. `client` alone is what a caller wrote: at most 64 letters, digits"
        " and `._+-/`.",
        "Histogram buckets, in seconds: " + ", ".join(f"{bound:g}" for bound in BUCKETS_S) + ".",
    )
