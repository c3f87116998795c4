"""Streams over HTTP: Splunk, lines of JSON, OpenTelemetry, S3; and what a stream does whatever happens."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import gateway.streaming.stream
from gateway.secret import Secret
from tenants.streams import StreamFormat, StreamKind
from tests.fakes.audit import ACME, GLOBEX
from tests.fakes.siem import SECRET, TOKEN, Siem, busy, ndjson, otlp, receiving, s3, splunk
from tests.kit.certs import make_pki
from tests.kit.wait import eventually
from tests.unit.streaming.bed import BY, Bed, open_bed


@pytest.fixture
async def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    monkeypatch.setattr(gateway.streaming.stream, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("gateway.streaming.http.GATHER_S", 0.0)
    for sender in ("SplunkSender", "NdjsonSender", "OtlpSender"):
        monkeypatch.setattr(f"gateway.streaming.http.{sender}.gather_s", 0.0)
    monkeypatch.setattr("gateway.streaming.s3.S3Sender.gather_s", 0.0)
    async with open_bed(tmp_path) as made:
        yield made


@pytest.fixture
def hec() -> Iterator[Siem]:
    with receiving(splunk) as siem:
        yield siem


@pytest.fixture
def lines() -> Iterator[Siem]:
    with receiving(ndjson) as siem:
        yield siem


def indexes(siem: Siem) -> list[int]:
    return [event["index"] for event in siem.events]


# -- each kind by its rules --------------------------------------------------------------------------------


async def test_splunk_gets_events_with_their_time_and_what_tells_repeats(bed: Bed, hec: Siem) -> None:
    await bed.add(StreamKind.SPLUNK, hec.url, secret=TOKEN, index="audit", sourcetype="orgate")
    await bed.log(3)
    bed.run()
    await bed.reached(3)
    first = hec.events[0]
    assert [event["event"]["index"] for event in hec.events] == [0, 1, 2]
    assert (first["host"], first["source"], first["sourcetype"], first["index"]) == (
        "gateway.example",
        "orgate:acme",
        "orgate",
        "audit",
    )
    assert first["time"] == f"{first['event']['@timestamp'] / 1000:.3f}"
    assert first["fields"]["document_id"] == first["event"]["_document_id"]
    (entry,) = (await bed.reader.entries(ACME, limit=1))[0]
    assert first["event"] == entry


async def test_splunk_can_acknowledge(bed: Bed, hec: Siem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.streaming.http.ACK_S", 0.01)
    hec.unacknowledged = 2
    await bed.add(StreamKind.SPLUNK, hec.url, secret=TOKEN, ack=True)
    await bed.log(2)
    bed.run()
    await bed.reached(2)
    asked = [seen for seen in hec.seen if seen.path.endswith("/ack")]
    assert len(asked) == 3
    assert len({seen.headers["x-splunk-request-channel"] for seen in hec.seen}) == 1


@pytest.mark.parametrize(
    ("secret", "more", "words"),
    [
        ("wrong", {}, "status 403 (the token is wrong)"),
        ("", {}, "its secret is not set"),
        (TOKEN, {"index": "forbidden"}, "status 400 (the index does not exist"),
    ],
)
async def test_splunk_refuses_in_our_words(
    bed: Bed, hec: Siem, secret: str, more: dict[str, Any], words: str
) -> None:
    stream = await bed.add(StreamKind.SPLUNK, hec.url, secret=secret, **more)
    await bed.log(1)
    bed.run()
    place = await bed.failing(words)
    assert (place.position, bool(place.failing_since), hec.events) == (0, True, [])
    await bed.secrets.put(ACME, stream.name, Secret(TOKEN))  # mended: it goes on by itself
    await bed.change(stream, secret_version=9, index="")
    await bed.reached(1)
    assert (await bed.place()).failure == ""


async def test_a_number_that_is_no_code_of_splunks_is_not_repeated(bed: Bed) -> None:
    """It would be the receiver's text in states, logs and webhooks, in digits."""
    with receiving(lambda *_: (400, {"code": 10**2_000})) as siem:
        await bed.add(StreamKind.SPLUNK, siem.url, secret=TOKEN)
        await bed.log(1)
        bed.run()
        assert (await bed.failing("status 400")).failure == "the receiver answered status 400"


async def test_a_busy_splunk_is_waited_for(bed: Bed) -> None:
    with receiving(busy) as siem:
        await bed.add(StreamKind.SPLUNK, siem.url, secret=TOKEN)
        await bed.log(1)
        bed.run()
        await bed.failing("status 503 (the server is busy)")


async def test_otlp_gets_log_records(bed: Bed) -> None:
    with receiving(otlp) as siem:
        await bed.add(StreamKind.OTLP, siem.url, secret="Bearer t0ken")
        await bed.log(2)
        bed.run()
        await bed.reached(2)
        record = siem.events[0]
        attributes = {one["key"]: one["value"] for one in record["attributes"]}
        entry = json.loads(record["body"]["stringValue"])
        assert (record["eventName"], record["severityNumber"]) == ("completion.create", 9)
        assert attributes["log.record.uid"] == {"stringValue": entry["_document_id"]}
        assert attributes["orgate.index"] == {"intValue": "0"}
        assert attributes["orgate.sent"] == {"boolValue": entry["sent"]}
        assert record["timeUnixNano"] == f"{entry['@timestamp']}000000"


async def test_what_an_otlp_receiver_rejects_is_counted_and_not_sent_again(bed: Bed) -> None:
    with receiving(otlp) as siem:
        siem.reject = 2
        await bed.add(StreamKind.OTLP, siem.url, secret="Bearer t0ken")
        await bed.log(3)
        bed.run()
        await bed.reached(3)
        assert (await bed.place()).rejected == 2
        assert len(siem.seen) == 1


async def test_lines_of_json_are_the_stored_ones_or_ocsf(bed: Bed, lines: Siem) -> None:
    await bed.add(StreamKind.NDJSON, lines.url + "/in", secret="Bearer abc")
    await bed.log(2)
    bed.run()
    await bed.reached(2)
    (seen,) = lines.seen
    assert seen.body == b"".join([piece async for piece in bed.reader.raw(ACME, 0, 2)])
    assert (seen.path, seen.headers["authorization"]) == ("/in", "Bearer abc")
    await bed.add(StreamKind.NDJSON, lines.url, name="ocsf", format=StreamFormat.OCSF)
    await bed.reached(2, name="ocsf")
    assert lines.events[-1]["metadata"]["uid"] == lines.events[1]["_document_id"]
    assert "authorization" not in lines.seen[-1].headers


async def test_s3_gets_signed_objects_named_by_their_entries(bed: Bed) -> None:
    with receiving(s3) as siem:
        await bed.add(StreamKind.S3, siem.url + "/bucket/pre", secret=SECRET, region="eu-central-1")
        await bed.log(5)
        bed.run()
        await bed.reached(5)
        ((name, data),) = siem.objects.items()
        assert name == "/bucket/pre/acme/siem/2025/11/21/000000000000-000000000004.jsonl.gz"
        assert gzip.decompress(data) == b"".join([piece async for piece in bed.reader.raw(ACME, 0, 5)])


# -- whatever becomes of the receiver ----------------------------------------------------------------------


async def test_a_receiver_that_was_down_gets_everything_in_order(bed: Bed, lines: Siem) -> None:
    lines.statuses = [500] * 3
    await bed.add(StreamKind.NDJSON, lines.url)
    bed.run()
    await bed.log(1_000)
    await bed.failing("status 500")
    await bed.log(1_500)
    await bed.reached(2_500)
    assert indexes(lines) == list(range(2_500))
    assert bed.metrics.failures >= 1


async def test_one_that_hangs_holds_neither_the_log_nor_another_stream(bed: Bed, lines: Siem) -> None:
    with receiving(ndjson) as slow:
        slow.hold = threading.Event()
        await bed.add(StreamKind.NDJSON, slow.url, name="slow")
        await bed.add(StreamKind.NDJSON, lines.url)
        bed.run()
        await bed.log(10)
        await bed.log(10)
        await bed.reached(20)
        assert (await bed.place(name="slow")).position == 0
        slow.hold.set()
        await bed.reached(20, name="slow")


async def test_after_a_kill_it_goes_on_where_the_receiver_was(bed: Bed, lines: Siem) -> None:
    await bed.add(StreamKind.NDJSON, lines.url)
    await bed.log(5)
    bed.run()
    await bed.reached(5)
    await bed.kill()
    await bed.log(5)
    bed.run()
    await bed.reached(10)
    assert indexes(lines) == list(range(10))


async def test_what_was_confirmed_and_not_written_down_comes_twice_under_one_id(bed: Bed, lines: Siem) -> None:
    await bed.add(StreamKind.NDJSON, lines.url)
    await bed.log(4)
    bed.run()
    await bed.reached(4)
    await bed.kill()
    place = await bed.place()
    await bed.store.streams.moved(type(place)(place.org, place.name, 2))  # as if killed before it was written
    bed.run()
    await bed.reached(4)
    assert indexes(lines) == [0, 1, 2, 3, 2, 3]
    assert len({event["_document_id"] for event in lines.events}) == 4


async def test_a_paused_stream_keeps_its_place(bed: Bed, lines: Siem) -> None:
    stream = await bed.add(StreamKind.NDJSON, lines.url)
    await bed.log(2)
    bed.run()
    await bed.reached(2)
    paused = await bed.change(stream, paused=True)
    await bed.streams.look()
    await bed.log(3)
    (state,) = await bed.streams.states((paused,))
    assert (state.state, state.position, state.lag_entries) == ("paused", 2, 3)
    await bed.change(stream, paused=False)
    await bed.reached(5)
    assert indexes(lines) == list(range(5))


async def test_a_new_stream_begins_now_unless_told_otherwise(bed: Bed, lines: Siem) -> None:
    await bed.log(3)
    await bed.add(StreamKind.NDJSON, lines.url, from_start=False)
    bed.run()
    await bed.reached(3)
    await bed.log(2)
    await bed.reached(5)
    assert indexes(lines) == [3, 4]


async def test_a_stream_carries_its_organizations_lines_and_nobody_elses(bed: Bed, lines: Siem) -> None:
    with receiving(ndjson) as theirs:
        await bed.add(StreamKind.NDJSON, lines.url)
        await bed.add(StreamKind.NDJSON, theirs.url, org=GLOBEX)
        bed.run()
        for _ in range(3):
            await bed.log(4)
            await bed.log(7, org=GLOBEX)
        await bed.reached(12)
        await bed.reached(21, GLOBEX)
        assert {event["org"] for event in lines.events} == {"acme"}
        assert {event["org"] for event in theirs.events} == {"globex"}


async def test_a_deleted_stream_ends_and_one_of_its_name_begins_anew(bed: Bed, lines: Siem) -> None:
    stream = await bed.add(StreamKind.NDJSON, lines.url)
    await bed.log(2)
    bed.run()
    await bed.reached(2)
    await bed.store.for_org(ACME).audit_streams.delete("siem", stream.version, BY)
    await bed.streams.look()
    assert (await bed.place()).position == -1
    await bed.add(StreamKind.NDJSON, lines.url, from_start=False)
    await bed.reached(2)
    assert len(lines.events) == 2


async def test_less_is_sent_at_once_to_whom_it_is_too_much(bed: Bed, lines: Siem) -> None:
    lines.most_bytes = 4_000
    await bed.add(StreamKind.NDJSON, lines.url)
    await bed.log(40)
    bed.run()
    await bed.reached(40)
    assert indexes(lines) == list(range(40))


async def test_an_entry_that_a_receiver_can_never_take_holds_nothing_up(bed: Bed, lines: Siem) -> None:
    lines.most_bytes = 10
    await bed.add(StreamKind.NDJSON, lines.url)
    await bed.log(2)
    bed.run()
    await bed.reached(2)
    assert ((await bed.place()).rejected, lines.events) == (2, [])


async def test_tls_is_verified_against_the_streams_own_ca(bed: Bed, tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki")
    with receiving(ndjson, pki.server_context(("http/1.1",))) as siem:
        await bed.log(1)
        stream = await bed.add(StreamKind.NDJSON, siem.url)
        bed.run()
        await bed.failing("certificate was refused")
        await bed.change(stream, ca_pem=pki.ca_pem)
        await bed.reached(1)


async def test_an_address_inside_is_not_dialled(bed: Bed, lines: Siem) -> None:
    await bed.add(StreamKind.NDJSON, "https://10.1.2.3/in")
    await bed.log(1)
    bed.run()
    await bed.failing("a private address, which is not allowed")


async def test_lag_is_shown_and_an_alarm_is_raised_once(bed: Bed, lines: Siem) -> None:
    lines.statuses = [500] * 10_000
    await bed.add(StreamKind.NDJSON, lines.url)
    await bed.log(3)  # of a day long ago
    bed.run()
    await bed.failing("status 500")
    bed.hears = False
    for _ in range(2):
        await bed.streams.measure()
    bed.hears = True
    for _ in range(2):
        await bed.streams.measure()
    assert [one[:2] for one in bed.told] == [(ACME, "audit.stream_behind")] * 3
    assert (bed.told[0][3]["lag_entries"], bed.told[0][3]["stream"]) == (3, "siem")
    assert bed.metrics.gauges["orgate_audit_stream_lag_entries", ("acme", "ndjson")] == 3
    assert bed.metrics.gauges["orgate_audit_stream_lag_seconds", ("acme", "ndjson")] > 900
    lines.statuses = []
    await bed.reached(3)
    await bed.streams.measure()
    assert bed.metrics.gauges["orgate_audit_stream_lag_entries", ("acme", "ndjson")] == 0
    assert bed.metrics.entries["acme", "ndjson"] == 3


@pytest.mark.parametrize(("statuses", "ok"), [([], True), ([500], False)])
async def test_a_test_sends_one_event_that_is_no_entry(
    bed: Bed, lines: Siem, statuses: list[int], ok: bool
) -> None:
    lines.statuses = statuses
    stream = await bed.add(StreamKind.NDJSON, lines.url)
    result = await bed.streams.test(stream)
    assert (result.ok, [event["action"] for event in lines.events]) == (ok, ["audit_stream.test"] * ok)
    assert (await bed.place()).position == -1


async def test_a_log_that_was_begun_anew_is_sent_from_its_beginning(bed: Bed, lines: Siem) -> None:
    await bed.add(StreamKind.NDJSON, lines.url)
    await bed.store.streams.moved(type(await bed.place())(ACME, "siem", 99))
    await bed.log(2)
    bed.run()
    await eventually(lambda: indexes(lines) == [0, 1], "all of the new log")
