"""Stand-ins around the audit log: receipts to append, a disk that fails when told, a key store in memory."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.canonical import canonical
from gateway.audit.chain import Chain
from gateway.audit.disk import Disk
from gateway.audit.entry import from_receipt
from gateway.audit.merkle import leaf_hash
from gateway.audit.pack import PackWriter, Plan, digest
from gateway.audit.signer import Signer
from gateway.exchange import Intent, Outcome, Receipt, SpooledReceipt, SpoolUp
from gateway.secret import Secret
from policies.facts import Action
from tenants.ids import OrgId
from tenants.store import Actor, Change

ACME = OrgId("acme")
GLOBEX = OrgId("globex")
SIGNER = Signer("gateway.example", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def receipt(n: int = 0, org: OrgId = ACME, **changes: object) -> Receipt:
    """One request that was served; `n` makes it different from others."""
    fields: dict[str, object] = {
        "org": org,
        "request_id": f"req_{n:020}",
        "at_us": 1_763_690_000_000_000 + n,
        "member": "mem_0123456789abcdefghjk",
        "client": "orgate-editor",
        "action": Action.COMPLETE,
        "outcome": Outcome.SERVED,
        "status": 200,
        "model": "code",
        "prompt_tokens": n,
        **changes,
    }
    return Receipt(**fields)  # type: ignore[arg-type]  # a test names the fields it cares for


def intent(n: int = 0, org: OrgId = ACME, **changes: object) -> Intent:
    """What is known of `receipt(n)` when it is admitted."""
    made = receipt(n, org, **changes)
    known = {name: getattr(made, name) for name in Intent.__struct_fields__ if name != "model"}
    return Intent(**known)


def up(boot: str, *numbers: int, org: OrgId = ACME) -> SpoolUp:
    return SpoolUp(boot, tuple(SpooledReceipt(n, receipt(n, org)) for n in numbers))


def change(
    seq: int, action: str = "member.create", org: OrgId = ACME, at: int = 1_763_690_000, **detail: str | int | bool
) -> Change:
    by: Mapping[str, str | int | bool | Sequence[str]] = detail
    return Change(seq, at, org, action, f"mem_{seq}", Actor(org, "mem_owner", "orgate-cli", f"req_{seq}"), by)


def lines(count: int, org: OrgId = ACME) -> tuple[list[bytes], Chain]:
    """The lines of a log of `count` entries, without newlines, and where its chain stands after them."""
    chain = Chain()
    return [chain.seal(from_receipt(receipt(n, org), "boot", n + 1).fields) for n in range(count)], chain


def write_pack(
    folder: Path,
    count: int,
    start: int = 0,
    end: int | None = None,
    org: OrgId = ACME,
    wanted: Mapping[str, object] | None = None,
    witnesses: str = "",
) -> None:
    """An honest pack of entries [start, end) of a log of `count`; with `wanted`, a filter, those that match it."""
    made, chain = lines(count, org)
    checkpoint = SIGNER.checkpoint(org, count, chain.tree.root())
    plan = Plan(
        org, checkpoint, str(SIGNER.key(org)), start, count if end is None else end, wanted or {}, witnesses
    )
    with PackWriter(folder, plan) as pack:
        for line in made[start:end]:
            entry = json.loads(line)
            if all(entry[name] == value for name, value in plan.filter.items()):
                pack.write(line + b"\n")
        if not plan.whole:
            pack.write_leaves(b"".join(map(leaf_hash, made)))
        pack.finish(1_763_690_001)


def write_old_pack(folder: Path, count: int, start: int = 0, end: int | None = None, org: OrgId = ACME) -> None:
    """A pack of format 1, as they were made before packs had hash tiles."""
    made, chain = lines(count, org)
    files = {
        "entries.jsonl": b"".join(line + b"\n" for line in made[start:end]),
        "checkpoint": SIGNER.checkpoint(org, count, chain.tree.root()).encode(),
        "key": f"{SIGNER.key(org)}\n".encode(),
    }
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    held = len(made[start:end])
    manifest = {
        "format": 1,
        "org": org,
        "start": start,
        "end": start + held,
        "count": held,
        "made_at": 1_763_690_001,
        "sha256": {name: sha256(data).hexdigest() for name, data in files.items()},
    }
    (folder / "manifest.json").write_bytes(canonical({**manifest, "digest": digest(manifest)}) + b"\n")


async def at_once(seconds: float) -> None:
    """A sequencer's `pause` where checkpoints need not be a second apart."""


class Keys:
    """A `KeyStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Secret] = {}

    async def load(self, name: str) -> Secret | None:
        return self.kept.get(name)

    async def store(self, name: str, secret: Secret) -> None:
        self.kept[name] = secret


class Outbox:
    """The control store's outbox in memory; it shouts when an order is broken."""

    def __init__(self, *changes: Change) -> None:
        self.changes = list(changes)
        self.done = 0

    async def outbox(self, limit: int = 500) -> tuple[Change, ...]:
        return tuple(self.changes[:limit])

    async def outbox_done(self, upto: int) -> None:
        assert any(item.seq == upto for item in self.changes), "done with a change that was never read"
        self.changes = [item for item in self.changes if item.seq > upto]
        self.done = upto


class FaultyDisk(Disk):
    """A real disk that fails the calls named in `failing`, with an errno each; `torn` bytes get through first."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        self.torn = 0
        self.calls: list[str] = []

    def full(self, *calls: str) -> None:
        self.failing.update(dict.fromkeys(calls, errno.ENOSPC))

    def broken(self, *calls: str) -> None:
        self.failing.update(dict.fromkeys(calls, errno.EIO))

    def mend(self) -> None:
        self.failing.clear()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if number := self.failing.get(name):
            raise OSError(number, os.strerror(number))

    def allocate(self, fd: int, size: int) -> None:
        self._call("allocate")
        super().allocate(fd, size)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if "write" in self.failing:
            super().write(fd, data[: self.torn], offset)
        self._call("write")
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._call("sync")
        super().sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._call("truncate")
        super().truncate(fd, size)
