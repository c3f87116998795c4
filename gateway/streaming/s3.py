"""An object of compressed lines for each batch, in a bucket of Amazon S3 or of what speaks like it.

Named after the day and the places of its entries: `<prefix>/<org>/<stream>/2026/11/21/<first>-<last>.jsonl.gz`, so
that names sort as the log does. What is sent again after a crash may be cut in other places: entries come twice in
two objects, and are known by their `_document_id`.
"""

from __future__ import annotations

import gzip
import time
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from gateway.secret import Secret
from gateway.streaming.batch import Batch
from gateway.streaming.post import Receiver, refused
from gateway.streaming.sender import SendError
from gateway.upstream.auth.sigv4 import Signer
from tenants.streams import AuditStream

MOST: Final = 50_000
MOST_BYTES: Final = 8 * 1024 * 1024
GATHER_S: Final = 60.0
REGION: Final = "us-east-1"
_TYPE: Final = (b"content-type", b"application/gzip")


class S3Sender:
    """The secret is `ID:SECRET`. Names need no coding: an organization's, a stream's and a URL's path are of
    characters that mean themselves."""

    certain = True
    most = MOST
    most_bytes = MOST_BYTES
    gather_s = GATHER_S

    def __init__(
        self, stream: AuditStream, secret: Secret | None, receiver: Receiver, clock: Callable[[], float]
    ) -> None:
        """Raises `SendError` for a secret of another form."""
        key, colon, rest = (secret.reveal() if secret is not None else b"").partition(b":")
        if not colon or not key or not rest or not key.isalnum():
            raise SendError("its secret is not ID:SECRET, an access key of the bucket")
        self._stream = stream
        self._receiver = receiver
        self._clock = clock
        region = stream.region or REGION
        self._signer = Signer(key.decode("ascii"), Secret(rest), region, "s3", host=receiver.url.netloc)

    async def send(self, batch: Batch) -> int:
        lines = b"".join(record.body + b"\n" for record in batch.records)
        body = gzip.compress(lines, 6, mtime=0)
        path = self._path(batch)
        at = self._clock()
        digest = sha256(body)
        headers = [
            _TYPE,
            (b"x-amz-checksum-sha256", b64encode(digest.digest())),  # a bucket with Object Lock wants it
            (b"x-amz-content-sha256", digest.hexdigest().encode()),
            (b"x-amz-date", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(int(at))).encode()),
        ]
        signed = [(b"host", self._receiver.url.netloc), *headers]
        value = self._signer.authorization(b"PUT", path.encode("ascii"), signed, body, at)
        answer = await self._receiver.ask(
            self._receiver.at(path), [*headers, (b"authorization", value)], body, "PUT"
        )
        if not answer.good:
            raise refused(answer)
        return 0

    async def alive(self) -> bool:
        return True

    async def aclose(self) -> None:
        await self._receiver.aclose()

    def _path(self, batch: Batch) -> str:
        day = time.strftime("%Y/%m/%d", time.gmtime(batch.records[0].at_ms // 1000))
        name = f"{batch.first:012}-{batch.end - 1:012}.jsonl.gz"
        return f"{self._receiver.url.path.rstrip('/')}/{self._stream.org}/{self._stream.name}/{day}/{name}"
