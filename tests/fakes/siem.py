"""Receivers of streams over HTTP that keep the rules of the real ones: Splunk's HEC, an OTLP collector, S3.

From Splunk's "HTTP Event Collector error codes" and "indexer acknowledgement", and the OTLP 1 specification.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes.aws import fault

TOKEN = "11111111-2222-4333-8444-555555555555"
SECRET = "AKIDORGATE:a-secret-of-tests"


@dataclass(frozen=True)
class Seen:
    """One request, as it arrived. Header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Reply = tuple[int, dict[str, Any]]


@dataclass
class Siem:
    """`statuses`: of the next answers, before any rule is asked; `events`: what it has taken, in order; `hold`:
    when set, no answer before this."""

    rule: Callable[[Siem, Seen], Reply]
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    reject: int = 0
    unacknowledged: int = 0
    """Questions for an acknowledgement that are answered no, before they are answered yes."""
    most_bytes: int = 0
    """0: takes any size; else a larger body is 413."""
    hold: threading.Event | None = None

    def reply(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        if self.hold is not None:
            self.hold.wait(30)
        if self.statuses:
            return self.statuses.pop(0), {}
        if self.most_bytes and len(seen.body) > self.most_bytes:
            return 413, {}
        return self.rule(self, seen)


def splunk(siem: Siem, seen: Seen) -> Reply:
    """`/services/collector/event` and `/services/collector/ack`."""
    given = seen.headers.get("authorization", "")
    if not given:
        return 401, {"text": "Token is required", "code": 2}
    if not given.startswith("Splunk "):
        return 401, {"text": "Invalid authorization", "code": 3}
    if given != f"Splunk {TOKEN}":
        return 403, {"text": "Invalid token", "code": 4}
    channel = seen.headers.get("x-splunk-request-channel")
    if seen.path == "/services/collector/ack":
        asked = json.loads(seen.body)["acks"]
        if siem.unacknowledged:
            siem.unacknowledged -= 1
            return 200, {"acks": {str(one): False for one in asked}}
        return 200, {"acks": {str(one): True for one in asked}}
    if seen.path != "/services/collector/event":
        return 404, {"text": "The requested URL was not found on this server.", "code": 404}
    events: list[dict[str, Any]] = []
    text, decoder, at = seen.body.decode(), json.JSONDecoder(), 0
    while at < len(text):
        try:
            event, at = decoder.raw_decode(text, at)
        except ValueError:
            return 400, {"text": "Invalid data format", "code": 6, "invalid-event-number": len(events)}
        if "event" not in event:
            return 400, {"text": "Event field is required", "code": 12, "invalid-event-number": len(events)}
        if event.get("index") == "forbidden":
            return 400, {"text": "Incorrect index", "code": 7, "invalid-event-number": len(events)}
        events.append(event)
        while at < len(text) and text[at].isspace():
            at += 1
    if not events:
        return 400, {"text": "No data", "code": 5}
    siem.events += events
    said: dict[str, Any] = {"text": "Success", "code": 0}
    return 200, said | ({"ackId": len(siem.seen)} if channel else {})


def busy(siem: Siem, seen: Seen) -> Reply:
    """An HEC that has no room."""
    return 503, {"text": "Server is busy", "code": 9}


def otlp(siem: Siem, seen: Seen) -> Reply:
    """`/v1/logs`: strict about what the JSON encoding says."""
    if seen.path != "/v1/logs":
        return 404, {}
    if seen.headers.get("content-type") != "application/json":
        return 415, {}
    if seen.headers.get("authorization") != "Bearer t0ken":
        return 401, {}
    for resource in json.loads(seen.body)["resourceLogs"]:
        assert {one["key"] for one in resource["resource"]["attributes"]} >= {"service.name"}
        for scope in resource["scopeLogs"]:
            for record in scope["logRecords"]:
                assert record["timeUnixNano"].isdecimal()
                assert 1 <= record["severityNumber"] <= 24
                for one in record["attributes"]:
                    ((kind, value),) = one["value"].items()
                    assert isinstance(value, {"stringValue": str, "intValue": str, "boolValue": bool}[kind])
                siem.events.append(record)
    if siem.reject:
        return 200, {"partialSuccess": {"rejectedLogRecords": str(siem.reject), "errorMessage": "too old"}}
    return 200, {}


def ndjson(siem: Siem, seen: Seen) -> Reply:
    siem.events += [json.loads(line) for line in seen.body.splitlines()]
    return 202, {}


def s3(siem: Siem, seen: Seen) -> Reply:
    """A PUT whose signature is right, for the region `eu-central-1`."""
    signed: Any = seen  # all that the check reads of a request
    wrong = fault(signed, SECRET.partition(":")[2], service="s3", region="eu-central-1", now=datetime.now(UTC))
    if wrong or seen.method != "PUT":
        return 403, {"code": wrong}
    siem.objects[seen.path] = seen.body
    return 200, {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    siem: Siem

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, said = self.siem.reply(Seen(self.command, self.path, headers, body))
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_POST  # noqa: N815 - the name that http.server calls

    def log_message(self, *_args: object) -> None:
        """Tests read `seen` instead."""


@contextmanager
def receiving(rule: Callable[[Siem, Seen], Reply], tls: ssl.SSLContext | None = None) -> Iterator[Siem]:
    """A receiver on a free port of loopback."""
    siem = Siem(rule)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"siem": siem}))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    siem.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield siem
    finally:
        if siem.hold is not None:
            siem.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
