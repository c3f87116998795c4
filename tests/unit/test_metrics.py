"""Counters: what a receipt adds, that sums never fall, and text that Prometheus' own parser reads."""

from __future__ import annotations

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from gateway.bus.messages import MetricsUp
from gateway.counters import CLIENTS_MAX, FAST_CANCEL_US, Counters
from gateway.exchange import Outcome, Receipt
from gateway.metric_families import BUCKETS_S, FAMILIES
from gateway.metrics import STALE_S, Gauge, Metrics
from gateway.upstream.gauges import Gauges, growing, of_this_moment
from gateway.upstream_metrics import UPSTREAMS_MAX, WorkerCounters
from policies.facts import Action
from tenants.ids import OrgId

RECEIPT = Receipt(
    org=OrgId("acme"),
    request_id="req_1",
    at_us=1,
    member="mem_secret",
    client="orgate-editor",
    action=Action.COMPLETE,
    outcome=Outcome.SERVED,
    status=200,
    model="code",
    sent=True,
    bytes_in=10,
    bytes_out=20,
    prompt_tokens=3,
    completion_tokens=4,
    cost_nanodollars=250_000_000,
    overhead_us=300,
    first_byte_us=5_000,
    total_us=1_200_000,
)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def exposed(*messages: MetricsUp) -> str:
    metrics = Metrics()
    for message in messages:
        metrics.absorb(message)
    return metrics.exposition()


def count_of(counters: Counters, name: str, **labels: str) -> float:
    return samples(exposed(counters.message("w1", "b1")))[name, tuple(sorted(labels.items()))]


def test_a_served_request_is_counted_with_its_bytes_and_tokens() -> None:
    counters = Counters()
    counters.observe(RECEIPT)
    counters.observe(RECEIPT)
    own = {"org": "acme", "task": "completions"}
    assert count_of(counters, "orgate_requests_total", **own, outcome="served") == 2
    assert count_of(counters, "orgate_bytes_total", **own, direction="in") == 20
    assert count_of(counters, "orgate_bytes_total", **own, direction="out") == 40
    assert count_of(counters, "orgate_tokens_total", **own, kind="prompt") == 6
    assert count_of(counters, "orgate_tokens_total", **own, kind="completion") == 8
    assert count_of(counters, "orgate_spend_dollars_total", **own) == 0.5
    assert count_of(counters, "orgate_request_seconds_count", **own) == 2
    assert count_of(counters, "orgate_request_seconds_sum", **own) == pytest.approx(2.4)


def test_buckets_are_cumulative_and_their_bounds_inclusive() -> None:
    counters = Counters()
    for microseconds in (0, 1_000, 1_001, 61_000_000):
        counters.time("orgate_request_seconds", ("acme", "chat"), microseconds)
    found = {
        dict(labels)["le"]: value
        for (name, labels), value in samples(exposed(counters.message("w", "b"))).items()
        if name == "orgate_request_seconds_bucket"
    }
    assert found["0.0005"] == 1
    assert found["0.001"] == 2
    assert found["0.0025"] == 3
    assert found["60.0"] == 3
    assert found["+Inf"] == 4
    assert len(found) == len(BUCKETS_S) + 1


def test_a_request_that_was_not_sent_has_no_first_byte_and_is_counted_as_unsent() -> None:
    counters = Counters()
    counters.observe(structs.replace(RECEIPT, sent=False, first_byte_us=0, overhead_us=0, outcome=Outcome.REFUSED))
    assert count_of(counters, "orgate_unsent_total", org="acme", task="completions", outcome="refused") == 1
    names = {name for name, _ in samples(exposed(counters.message("w", "b")))}
    assert not any(name.startswith(("orgate_first_byte", "orgate_overhead")) for name in names)


def test_no_label_names_a_person_a_model_or_a_request() -> None:
    counters = Counters()
    counters.observe(RECEIPT)
    text = exposed(counters.message("w", "b"))
    assert not [word for word in ("mem_secret", "code", "req_1", "orgate-editor") if f'"{word}"' in text]


def test_workers_are_summed_and_repeats_change_nothing() -> None:
    one, two = Counters(), Counters()
    one.observe(RECEIPT)
    two.observe(RECEIPT)
    metrics = Metrics()
    for message in (one.message("w1", "a"), two.message("w2", "a"), one.message("w1", "a")):
        metrics.absorb(message)
    assert metrics.totals()["orgate_requests_total", ("acme", "completions", "served")] == 2


def test_sums_never_fall_when_workers_die_and_messages_arrive_late() -> None:
    key = ("orgate_requests_total", ("acme", "completions", "served"))
    counters = Counters()
    counters.observe(RECEIPT)
    early = counters.message("w1", "boot-1")
    counters.observe(RECEIPT)
    metrics = Metrics()
    seen = [0.0]
    fresh = Counters()
    fresh.observe(RECEIPT)
    for message in (
        counters.message("w1", "boot-1"),
        early,
        fresh.message("w1", "boot-2"),
        fresh.message("w1", "boot-3"),
        fresh.message("w1", "boot-4"),
        counters.message("w1", "boot-1"),  # folded long ago: counted once all the same
    ):
        metrics.absorb(message)
        seen.append(metrics.totals()[key])
    assert seen == [0, 2, 2, 3, 4, 5, 5]


@pytest.mark.parametrize(
    "counter",
    [
        ("orgate_unknown_total", ("a",), 1.0),
        ("orgate_requests_total", ("a",), 1.0),
        ("orgate_request_seconds", ("a", "b"), 1.0),
        ("orgate_requests_total_bucket", ("a", "b", "c", "d"), 1.0),
        ("orgate_request_seconds_count", ("a", "b"), 1.0),
    ],
)
def test_a_counter_of_another_version_is_refused_whole(counter: tuple[str, tuple[str, ...], float]) -> None:
    metrics = Metrics()
    good = ("orgate_requests_total", ("acme", "chat", "served"), 1.0)
    with pytest.raises(ValueError, match="no counter of this version"):
        metrics.absorb(MetricsUp("w", "b", (good, counter)))
    assert metrics.totals() == {}


def test_gauges_are_grouped_and_label_values_escaped() -> None:
    gauges = [
        Gauge("orgate_worker_version", "What a worker serves.", 3, (("worker", 'w"2\n\\'),)),
        Gauge("orgate_store_version", "The store's version.", 4.5),
        Gauge("orgate_worker_version", "What a worker serves.", 2, (("worker", "w1"),)),
    ]
    text = Metrics().exposition(gauges)
    assert text.count("# TYPE orgate_worker_version gauge") == 1
    found = samples(text)
    assert found["orgate_worker_version", (("worker", 'w"2\n\\'),)] == 3
    assert found["orgate_store_version", ()] == 4.5


def fast(counters: Counters) -> dict[str, float]:
    """The fast cancels of acme, by client."""
    found = samples(exposed(counters.message("w1", "b1")))
    return {
        dict(labels)["client"]: value
        for (name, labels), value in found.items()
        if name == "orgate_fast_cancels_total" and dict(labels)["org"] == "acme"
    }


def test_a_cancel_is_fast_when_nothing_was_sent_or_hardly_any_time_had_passed() -> None:
    counters = Counters()
    cancelled = structs.replace(RECEIPT, outcome=Outcome.CANCELLED_BY_CLIENT, client_version="vim/1")
    for sent, total_us in (
        (False, 3_000_000),  # fast: it waited for its limit or in line, and the model never saw it
        (True, FAST_CANCEL_US - 1),  # fast
        (True, FAST_CANCEL_US),
    ):
        counters.observe(structs.replace(cancelled, sent=sent, total_us=total_us))
    for outcome in Outcome:
        if outcome is not Outcome.CANCELLED_BY_CLIENT:
            counters.observe(structs.replace(cancelled, outcome=outcome, sent=False, total_us=1))
    assert fast(counters) == {"vim/1": 2}


def test_versions_are_bounded_for_each_organization_by_itself() -> None:
    counters = Counters()
    cancelled = structs.replace(RECEIPT, outcome=Outcome.CANCELLED_BY_CLIENT, sent=False)
    for number in range(CLIENTS_MAX + 50):
        counters.observe(structs.replace(cancelled, org=OrgId("globex"), client_version=f"made-up/{number}"))
    assert fast(counters) == {}
    for number in [*range(CLIENTS_MAX + 3), 0]:
        counters.observe(structs.replace(cancelled, client_version=f"vim/{number}"))
    found = fast(counters)
    assert len(found) == CLIENTS_MAX + 1
    assert (found["vim/0"], found["other"]) == (2, 3)


def test_gauges_of_workers_are_summed_and_forgotten_with_them() -> None:
    now = 100.0
    metrics = Metrics(lambda: now)
    label = ("acme", "main")
    for worker, value in (("w1", 3.0), ("w2", 4.0), ("w1", 2.0)):
        metrics.absorb(MetricsUp(worker, worker, (), (("orgate_upstream_streams", label, value),)))
    key = ("orgate_upstream_streams", (("org", "acme"), ("upstream", "main")))
    assert samples(metrics.exposition())[key] == 6
    now += STALE_S - 1
    metrics.absorb(MetricsUp("w2", "w2", (), (("orgate_upstream_streams", label, 5.0),)))
    now += 2
    assert samples(metrics.exposition())[key] == 5  # w1 has gone without a word
    metrics.absorb(MetricsUp("w2", "w2", ()))
    assert key not in samples(metrics.exposition())  # the upstream was deleted


@pytest.mark.parametrize("name", ["orgate_unknown", "orgate_requests_total"])
def test_a_gauge_of_another_version_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no gauge of this version"):
        Metrics().absorb(MetricsUp("w", "b", (), ((name, ("acme", "main", "x"), 1.0),)))


def test_upstreams_add_what_has_grown_since_the_last_report() -> None:
    gauges = Gauges(connections=2, streams=1, handshakes=2, resets_sent=3)
    gauges.queue[1], gauges.shed[0] = 4, 5
    found = [(OrgId("acme"), "main", gauges)]
    counters = WorkerCounters(lambda: found)
    now = {(name, labels): value for name, labels, value in counters.message("w", "b").gauges}
    assert now["orgate_upstream_connections", ("acme", "main")] == 2
    assert now["orgate_upstream_queue", ("acme", "main", "chat")] == 4
    gauges.handshakes = 5
    for _ in range(2):
        counters.message("w", "b")
    found = []
    assert counters.message("w", "b").gauges == ()
    found = [(OrgId("acme"), "main", Gauges(handshakes=1))]  # deleted and made anew
    metrics = Metrics()
    metrics.absorb(counters.message("w", "b"))
    assert metrics.totals()["orgate_upstream_handshakes_total", ("acme", "main")] == 5 + 1
    assert metrics.totals()["orgate_upstream_resets_total", ("acme", "main", "sent")] == 3
    assert metrics.totals()["orgate_upstream_shed_total", ("acme", "main", "completion")] == 5


def test_upstreams_that_come_and_go_are_bounded_for_each_organization_by_itself() -> None:
    found: list[tuple[OrgId, str, Gauges]] = []
    counters = WorkerCounters(lambda: found)
    for number in range(UPSTREAMS_MAX + 50):
        found[:] = [(OrgId("acme"), f"u{number}", Gauges(requests=1))]
        counters.message("w", "b")
    found[:] = [(OrgId("globex"), "main", Gauges(requests=1))]
    counted = {labels: value for name, labels, value in counters.message("w", "b").counters}
    assert len(counted) == UPSTREAMS_MAX + 2
    assert (counted["acme", "u0"], counted["acme", "other"], counted["globex", "main"]) == (1, 50, 1)


def test_every_sample_of_an_upstream_has_its_family() -> None:
    for found, kind in ((growing(Gauges()), "counter"), (of_this_moment(Gauges()), "gauge")):
        for name, labels, _ in found:
            assert FAMILIES[name].type == kind
            assert len(FAMILIES[name].labels) == 2 + len(labels)
