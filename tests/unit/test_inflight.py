"""What a worker says of the requests it has in flight."""

from __future__ import annotations

from gateway.inflight import InFlight
from gateway.metrics import FAMILIES, Counters, Metrics
from tenants.ids import OrgId
from tests.unit.pipeline.world import FakeInbound

ACME, GLOBEX = OrgId("acme"), OrgId("globex")


def test_each_organizations_count_is_shown_and_none_of_those_that_have_nothing() -> None:
    in_flight, metrics = InFlight(), Metrics()
    requests = [(ACME, FakeInbound()), (ACME, FakeInbound()), (GLOBEX, FakeInbound())]
    for org, request in requests:
        in_flight.enter(org, "mem_1", request)
    assert in_flight.gauges() == (("orgate_in_flight", ("acme",), 2), ("orgate_in_flight", ("globex",), 1))
    assert FAMILIES["orgate_in_flight"].type == "gauge"
    metrics.absorb(Counters().message("w", "w", in_flight.gauges()))
    assert 'orgate_in_flight{org="acme"} 2' in metrics.exposition().splitlines()
    for org, request in requests:
        in_flight.leave(org, "mem_1", request)
    assert in_flight.gauges() == ()
    metrics.absorb(Counters().message("w", "w", in_flight.gauges()))
    assert "orgate_in_flight{" not in metrics.exposition()
