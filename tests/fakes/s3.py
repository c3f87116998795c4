"""An S3-compatible server that keeps the rules of Object Lock, in memory, over HTTP.

What it does is what S3's API reference says of versioned buckets with Object Lock in compliance mode: a version
cannot be removed before its time or while it is held, its time can be lengthened and never shortened, its mode
not changed, by nobody; a delete without a version only adds a marker; a write that would lock needs a checksum
of its body. Signatures are not checked, except that the key's id must be the right one.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

KEY_ID, SECRET = "AKIDORGATE", "a secret of the tests"
_XML = '<?xml version="1.0" encoding="UTF-8"?>'


@dataclass
class Version:
    key: str
    id: str
    data: bytes
    until: float = 0.0
    """Unix seconds; 0: not locked."""
    held: bool = False
    marker: bool = False


@dataclass
class Bucket:
    """`lock`: made with Object Lock, which also keeps versions."""

    lock: bool = True
    versions: list[Version] = field(default_factory=list)
    """The newest last."""

    def find(self, key: str, version: str = "") -> Version | None:
        for one in reversed(self.versions):
            if one.key == key and version in ("", one.id):
                return one
        return None


class RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message or code


@dataclass
class FakeS3:
    """`answer`: called before each request with its method and path; what it raises is answered."""

    buckets: dict[str, Bucket] = field(default_factory=dict)
    now: Callable[[], float] = time.time
    answer: Callable[[str, str], None] = lambda _method, _path: None
    spoil: bool = False
    """Whether what is written is kept with a byte changed."""
    unlocked: bool = False
    """Whether locks are taken and forgotten, as servers do that know none."""
    port: int = 0
    requests: list[str] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=lambda: count(1))
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def names(self, bucket: str = "audit") -> list[str]:
        return sorted({one.key for one in self.buckets[bucket].versions if not one.marker})

    # -- the operations -------------------------------------------------------------------------------------

    def put(self, bucket: Bucket, key: str, data: bytes, headers: dict[str, str]) -> Version:
        until, mode = headers.get("x-amz-object-lock-retain-until-date"), headers.get("x-amz-object-lock-mode")
        hold = headers.get("x-amz-object-lock-legal-hold") == "ON"
        checksum = headers.get("x-amz-checksum-sha256", "")
        if checksum and base64.b64decode(checksum) != hashlib.sha256(data).digest():
            raise RefusedError(400, "BadDigest")
        if bool(until) != bool(mode):
            raise RefusedError(400, "InvalidArgument", "mode and retain-until-date belong together")
        if until or hold:
            if not bucket.lock:
                raise RefusedError(400, "InvalidRequest", "Bucket is missing Object Lock Configuration")
            if not checksum and "content-md5" not in headers:
                raise RefusedError(400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required")
        at = self._until(until, mode) if until else 0.0
        if self.spoil:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if self.unlocked:
            at, hold = 0.0, False
        made = Version(key, f"v{next(self._ids)}", data, at, hold)
        if not bucket.lock:
            made.id = "null"
            bucket.versions = [one for one in bucket.versions if one.key != key]
        bucket.versions.append(made)
        return made

    def delete(self, bucket: Bucket, key: str, version: str) -> None:
        if not version:
            if bucket.lock:
                bucket.versions.append(Version(key, f"v{next(self._ids)}", b"", marker=True))
            else:
                bucket.versions = [one for one in bucket.versions if one.key != key]
            return
        found = bucket.find(key, version)
        if found is None:
            return
        if found.held or found.until > self.now():
            raise RefusedError(403, "AccessDenied", "Access Denied because object protected by object lock.")
        bucket.versions.remove(found)

    def retain(self, found: Version, mode: str | None, until: str) -> None:
        at = self._until(until, mode)
        if at < found.until and found.until > self.now():
            raise RefusedError(403, "AccessDenied", "Access Denied because object protected by object lock.")
        if not self.unlocked:
            found.until = at

    def _until(self, text: str, mode: str | None) -> float:
        if mode != "COMPLIANCE":
            raise RefusedError(400, "InvalidArgument", "this server is asked for compliance mode alone")
        at = datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=UTC).timestamp()
        if at <= self.now():
            raise RefusedError(400, "InvalidArgument", "The retain until date must be in the future!")
        if at > self.now() + 100 * 366 * 86_400:
            raise RefusedError(400, "InvalidArgument", "The retain until date is more than 100 years away")
        return at

    # -- over HTTP ------------------------------------------------------------------------------------------

    def handle(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[dict[str, str], bytes]:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        name, _, key = unquote(parts.path).lstrip("/").partition("/")
        with self._lock:
            self.requests.append(f"{method} {parts.path}?{parts.query}")
        self.answer(method, unquote(parts.path))
        if KEY_ID not in headers.get("authorization", ""):
            raise RefusedError(403, "InvalidAccessKeyId")
        with self._lock:
            bucket = self.buckets.get(name)
            if bucket is None:
                raise RefusedError(404, "NoSuchBucket")
            return self._key(method, bucket, key, query, headers, body) if key else self._bucket(bucket, query)

    def _bucket(self, bucket: Bucket, query: dict[str, str]) -> tuple[dict[str, str], bytes]:
        if "object-lock" in query:
            if not bucket.lock:
                raise RefusedError(404, "ObjectLockConfigurationNotFoundError")
            enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>"
            return {}, f"{_XML}<ObjectLockConfiguration>{enabled}</ObjectLockConfiguration>".encode()
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        newest = {one.key: one for one in bucket.versions}
        keys = [
            key for key, one in sorted(newest.items()) if key.startswith(prefix) and key > after and not one.marker
        ]
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(newest[key].data)}</Size></Contents>"
            for key in keys[: int(query.get("max-keys", 1_000))]
        )
        answer = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        return {}, (_XML + answer).encode()

    def _key(
        self, method: str, bucket: Bucket, key: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[dict[str, str], bytes]:
        if method == "PUT" and "retention" not in query and "legal-hold" not in query:
            return {"x-amz-version-id": self.put(bucket, key, body, headers).id, "ETag": '"tag"'}, b""
        if method == "DELETE":
            self.delete(bucket, key, query.get("versionId", ""))
            return {}, b""
        found = bucket.find(key, query.get("versionId", ""))
        if found is None or found.marker:
            raise RefusedError(404, "NoSuchVersion" if query.get("versionId") else "NoSuchKey")
        if method == "PUT":
            told = {item.tag.rpartition("}")[2]: item.text or "" for item in ElementTree.fromstring(body)}
            if "retention" in query:
                self.retain(found, told.get("Mode"), told["RetainUntilDate"])
            elif not self.unlocked:
                found.held = told["Status"] == "ON"
            return {}, b""
        shown = {"x-amz-version-id": found.id}
        if found.until:
            at = datetime.fromtimestamp(found.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            shown |= {"x-amz-object-lock-mode": "COMPLIANCE", "x-amz-object-lock-retain-until-date": at}
        if found.held:
            shown["x-amz-object-lock-legal-hold"] = "ON"
        return shown, found.data


@contextmanager
def fake_s3(**buckets: Bucket) -> Iterator[FakeS3]:
    """Serves on loopback until the block ends. Without buckets: one `audit` with Object Lock."""
    fake = FakeS3(buckets or {"audit": Bucket()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            if headers.get("expect", "").lower() == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(int(headers.get("content-length", 0)))
            status = 200
            try:
                shown, data = fake.handle(self.command, self.path, headers, body)
            except RefusedError as refused:
                status, shown = refused.status, {}
                text = f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>"
                data = (_XML + text).encode()
            except ConnectionError:
                self.close_connection = True
                self.connection.close()
                return
            self.send_response_only(status)
            for name, value in shown.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815  # names that http.server gives

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
