"""Objects that nobody can change: an S3-compatible bucket with Object Lock, in compliance mode.

Synchronous, for threads. Everything is written with its checksum and locked until a given time, and counts only
once it has been read back: its bytes, its version, its lock. Whoever holds the access key can add objects and
read them; until their time nobody can remove or change them, an administrator of the bucket neither.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Any, NamedTuple

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from gateway.audit.log_store import StoreAwayError
from gateway.secret import Secret

log = logging.getLogger(__name__)

CONNECT_S, READ_S, TRIES = 5, 30, 3


class ObjectsError(StoreAwayError):
    """The bucket cannot be used now, or not as it is."""


class BucketError(ObjectsError):
    """It is not there, keeps no locks, or is closed to this key: somebody has to mend that."""


class Locked(NamedTuple):
    """An object as it was found after it was written: `until` in Unix seconds."""

    version: str
    until: int


class Objects:
    """`bucket`, below `prefix`. `key` is `ID:SECRET`; None: what the machine has."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        endpoint: str = "",
        region: str = "us-east-1",
        key: Secret | None = None,
        ca: str = "",
        tries: int = TRIES,
    ) -> None:
        self.bucket = bucket
        self._prefix = prefix
        found = key.reveal().decode().partition(":") if key is not None else ("", "", "")
        self._client: Any = _session().create_client(
            "s3",
            region_name=region,
            endpoint_url=endpoint or None,
            verify=ca or None,
            aws_access_key_id=found[0] or None,
            aws_secret_access_key=found[2] or None,
            config=Config(
                connect_timeout=CONNECT_S,
                read_timeout=READ_S,
                retries={"total_max_attempts": tries, "mode": "standard"},
                max_pool_connections=16,
                s3={"addressing_style": "path" if endpoint else "auto"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def close(self) -> None:
        self._client.close()

    def check(self) -> None:
        """Raise `BucketError` unless the bucket is there and locks, `ObjectsError` when it cannot be asked."""
        with _asking(f"bucket {self.bucket}"):
            found = self._client.get_object_lock_configuration(Bucket=self.bucket)
        if found["ObjectLockConfiguration"].get("ObjectLockEnabled") != "Enabled":
            raise BucketError(f"bucket {self.bucket} has no Object Lock: make one that has")

    def put(self, name: str, data: bytes, until: int, *, held: bool = False) -> Locked:
        """Write, lock until `until` (Unix seconds), read back. Raises `ObjectsError`.

        Crash, or an answer that is lost, after the write: an object that nobody knows of. The next try writes
        the same bytes again, as another version.
        """
        asked: dict[str, object] = {
            "ObjectLockMode": "COMPLIANCE",
            "ObjectLockRetainUntilDate": datetime.fromtimestamp(until, UTC),
        }
        if held:
            asked["ObjectLockLegalHoldStatus"] = "ON"
        digest = b64encode(sha256(data).digest()).decode()
        with _asking(name):
            made = self._client.put_object(
                Bucket=self.bucket, Key=self._key(name), Body=data, ChecksumSHA256=digest, **asked
            )
        version = made.get("VersionId")
        if not version or version == "null":
            raise ObjectsError(f"bucket {self.bucket} keeps no versions: it has no Object Lock")
        with _asking(name):
            found = self._client.get_object(Bucket=self.bucket, Key=self._key(name), VersionId=version)
            same = found["Body"].read() == data
            # Some servers tell of locks here alone.
            lock = self._client.head_object(Bucket=self.bucket, Key=self._key(name), VersionId=version)
        if not same or found.get("VersionId") != version:
            raise ObjectsError(f"{name} was not kept as it was written: it reads back as something else")
        at = lock.get("ObjectLockRetainUntilDate")
        if lock.get("ObjectLockMode") != "COMPLIANCE" or at is None or at.timestamp() < until:
            raise ObjectsError(f"{name} was written and not locked: is Object Lock on for bucket {self.bucket}?")
        if held and lock.get("ObjectLockLegalHoldStatus") != "ON":
            raise ObjectsError(f"{name} was written without its legal hold")
        return Locked(version, int(at.timestamp()))

    def get(self, name: str, version: str) -> bytes:
        with _asking(name):
            found = self._client.get_object(Bucket=self.bucket, Key=self._key(name), VersionId=version)
            data: bytes = found["Body"].read()
        return data

    def newest(self, name: str) -> bytes:
        """Of an object whose version nobody knows."""
        with _asking(name):
            found = self._client.get_object(Bucket=self.bucket, Key=self._key(name))
            data: bytes = found["Body"].read()
        return data

    def after(self, folder: str, name: str) -> list[str]:
        """Names below `folder` that come after `name`, in order; 1,000 at most."""
        key = self._key(folder)
        with _asking(folder):
            found = self._client.list_objects_v2(Bucket=self.bucket, Prefix=key, StartAfter=self._key(name))
        return [item["Key"].removeprefix(f"{self._prefix}/") for item in found.get("Contents", ())]

    def retain(self, name: str, version: str, until: int) -> None:
        """Lock it for longer; a shorter time is refused by the bucket."""
        at = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.fromtimestamp(until, UTC)}
        with _asking(name):
            self._client.put_object_retention(
                Bucket=self.bucket,
                Key=self._key(name),
                VersionId=version,
                Retention=at,
                ChecksumAlgorithm="SHA256",
            )

    def hold(self, name: str, version: str, *, on: bool) -> None:
        """Lock it for as long as it is held, beside its time."""
        with _asking(name):
            self._client.put_object_legal_hold(
                Bucket=self.bucket,
                Key=self._key(name),
                VersionId=version,
                LegalHold={"Status": "ON" if on else "OFF"},
                ChecksumAlgorithm="SHA256",
            )

    def delete(self, name: str, version: str) -> None:
        """For good. Raises `ObjectsError` while it is locked."""
        with _asking(name):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(name), VersionId=version)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"


@cache
def _session() -> Session:
    """It reads what it knows of the API from files: once is enough."""
    return Session()


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """What the library raises, in words; they hold no secret."""
    try:
        yield
    except ClientError as error:
        told, status = error.response.get("Error", {}), error.response["ResponseMetadata"]["HTTPStatusCode"]
        kind = BucketError if 400 <= status < 500 else ObjectsError
        code, message = told.get("Code", "an error"), told.get("Message", "")
        more = f": {message}" if message not in ("", code) else ""
        raise kind(f"S3 answered {code} for {what}{more}") from None
    except BotoCoreError as error:
        raise ObjectsError(f"S3 cannot be asked for {what}: {type(error).__name__}") from None
    except (OSError, ValueError) as error:  # of a connection that broke within a body
        raise ObjectsError(f"S3 broke off with {what}: {type(error).__name__}") from None
