"""What a worker says of the requests it has in flight."""

from __future__ import annotations

from gateway.counters import Counters
from gateway.inflight import InFlight
from gateway.metric_families import FAMILIES
from gateway.metrics import Metrics
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


def fill(in_flight: InFlight, most: int, *orgs: tuple[OrgId, int]) -> dict[OrgId, int]:
    """In turns, as much as each can get."""
    got = {org: 0 for org, _ in orgs}
    while True:
        more = [(org, weight) for org, weight in orgs if in_flight.has_room(org, most, weight)]
        if not more:
            return got
        for org, weight in more:
            if in_flight.has_room(org, most, weight):
                in_flight.enter(org, "mem_1", FakeInbound(), weight)
                got[org] += 1


def test_a_heavier_organization_may_have_more_in_flight_beside_others() -> None:
    """Both want as much as they can get, and requests end one after the other."""
    for heavy in (1, 3):
        in_flight, most = InFlight(), 900
        orgs = ((ACME, 1), (GLOBEX, heavy))
        held: dict[OrgId, list[FakeInbound]] = {ACME: [], GLOBEX: []}
        for _ in range(2_000):
            for org, weight in orgs:
                if in_flight.has_room(org, most, weight):
                    held[org].append(FakeInbound())
                    in_flight.enter(org, "mem_1", held[org][-1], weight)
            if in_flight.count > 600:
                for org, _ in orgs:
                    in_flight.leave(org, "mem_1", held[org].pop())
                    if in_flight.has_room(org, most, heavy if org == GLOBEX else 1):
                        held[org].append(FakeInbound())
                        in_flight.enter(org, "mem_1", held[org][-1], heavy if org == GLOBEX else 1)
        assert abs(len(held[GLOBEX]) / len(held[ACME]) - heavy) < 0.1 * heavy
        assert most - in_flight.count >= 99  # and room is left for who comes


def test_alone_weight_makes_no_difference() -> None:
    for weight in (1, 3, 1000):
        assert fill(InFlight(), 100, (ACME, weight)) == {ACME: 80}


def test_who_is_lighter_by_far_gets_in_all_the_same() -> None:
    in_flight = InFlight()
    fill(in_flight, 100, (GLOBEX, 1000))
    assert in_flight.has_room(ACME, 100, 1)


def test_a_weight_counts_only_as_long_as_something_is_in_flight() -> None:
    in_flight, request = InFlight(), FakeInbound()
    in_flight.enter(GLOBEX, "mem_1", request, 4)
    light = fill(in_flight, 100, (ACME, 1))[ACME]
    in_flight.leave(GLOBEX, "mem_1", request)
    assert light < fill(in_flight, 100, (ACME, 1))[ACME] + light == 80
