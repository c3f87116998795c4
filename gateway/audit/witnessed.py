"""The newest checkpoint of each log that had its quorum, as a file: what is served after a restart, too.

`<folder>/<org>` is a note with its cosignatures. It can be lost: the next checkpoint makes it anew.
"""

from __future__ import annotations

from pathlib import Path

from gateway.audit.disk import Disk, replace_file
from gateway.audit.note import NoteError, VerifierKey, open_note
from gateway.audit.policy import Policy, judge
from tenants.ids import OrgId, org_id


class WitnessedNotes:
    """Synchronous; one writer for each organization."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()

    def load(self, org: OrgId, key: VerifierKey, policy: Policy) -> str:
        """What was saved, '' for nothing, for a note of another key and for one that `policy` refuses now."""
        try:
            note = (self._folder / org_id(org)).read_text(encoding="utf-8")
            open_note(note, key)
        except (OSError, NoteError, UnicodeDecodeError):
            return ""
        return note if judge(policy, note).met else ""

    def save(self, org: OrgId, note: str) -> None:
        """Raises OSError. A crash leaves the one before or this one, whole."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._folder / org_id(org), note.encode(), self._disk)
