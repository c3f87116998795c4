"""Packs as somebody who hides a change would leave them, and what the verifier says of them."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from gateway.audit.canonical import canonical
from gateway.audit.pack import digest
from gateway.audit.verify import Known, verify_pack
from tests.fakes.audit import ACME, SIGNER

KEY = str(SIGNER.key(ACME))


def words(folder: Path, known: Known | str | None = KEY) -> str:
    verdict = verify_pack(folder, known)
    assert verdict.ok is not bool(verdict.faults)
    return "\n".join(f"{fault.where}: {fault.what}" for fault in verdict.faults)


def spoil(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def mend_manifest(folder: Path, **changes: object) -> None:
    """Make the manifest fit again, as somebody who hides a change would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    if manifest["format"] == 1:
        manifest["sha256"] = {name: part(folder / name)["sha256"] for name in manifest["sha256"]}
    else:
        manifest["files"] = {name: part(folder / name) for name in manifest["files"]}
        for level, _ in enumerate(manifest["tiles"]):
            paths = sorted(path for path in (folder / "tile" / str(level)).rglob("*") if path.is_file())
            manifest["tiles"][level] = part(*paths)
    manifest.update(changes)
    manifest["digest"] = digest(manifest)
    (folder / "manifest.json").write_bytes(canonical(manifest) + b"\n")


def part(*paths: Path) -> dict[str, object]:
    data = b"".join(path.read_bytes() for path in paths)
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}
