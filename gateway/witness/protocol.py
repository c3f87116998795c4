"""What a witness answers (C2SP tlog-witness), and the order in which it decides.

The rule it lives by: at most one chain of trees for each origin, each the beginning of the next. It cosigns a
checkpoint only when the log signed it and a proof shows that it begins with the last one cosigned.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from gateway.audit.cosignature import cosign
from gateway.audit.note import Checkpoint, NoteError, VerifierKey, open_note, split_note
from gateway.audit.proofs import EMPTY_ROOT, verify_consistency
from gateway.audit.witness_wire import SIZE_TYPE, Submission, parse_submission, tree_head
from gateway.witness.folder import FolderError, WitnessFolder

log = logging.getLogger("orgate.witness")

PLAIN = "text/plain; charset=utf-8"

_FORKED = "the log has signed two trees of one size with different roots"
_UNPROVEN = "the proof does not show that this tree begins with the one known"


class Answer(NamedTuple):
    """A response: `kind` is its content type."""

    status: int
    body: str
    kind: str = PLAIN


class Witness:
    """One process at a time holds `folder` (`WitnessFolder.held`). `clock`: Unix seconds."""

    def __init__(self, folder: WitnessFolder, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._turns: dict[str, threading.Lock] = {}

    async def add_checkpoint(self, body: bytes) -> Answer:
        """Answer a submission. In a thread, for it waits for the disk; a caller who leaves does not stop it."""
        return await asyncio.to_thread(self.judge, body)

    async def published(self, origin_hash: str) -> Answer:
        """The last cosigned checkpoint of a log that is served."""
        try:
            note = await asyncio.to_thread(self._folder.published, origin_hash)
        except (FolderError, OSError) as error:
            return _broken(error)
        return Answer(200, note) if note else Answer(404, "no checkpoint of such a log was cosigned here\n")

    def judge(self, body: bytes) -> Answer:
        """The same, in this thread."""
        try:
            asked = parse_submission(body)
            text, _ = split_note(asked.note)
            head = tree_head(text)
        except NoteError as error:
            return Answer(400, f"{error}\n")
        try:
            return self._judge_log(asked, text, head)
        except (FolderError, OSError) as error:
            return _broken(error)

    def _judge_log(self, asked: Submission, text: str, head: Checkpoint) -> Answer:
        keys = self._folder.keys(head.origin)
        if not keys:
            log.info("%s: not served here", _short(head.origin))
            return Answer(404, "this witness does not serve that origin\n")
        if (fault := _unsigned(asked.note, keys)) is not None:
            log.warning("%s: refused: %s", head.origin, fault)
            return Answer(403, f"{fault}\n")
        if asked.old > head.size:
            return Answer(400, "the old size is larger than the checkpoint's\n")
        # Whoever decides also writes, before the next one reads: two requests at once cannot both follow one tree.
        with self._turns.setdefault(head.origin, threading.Lock()):
            return self._judge_tree(asked, text, head)

    def _judge_tree(self, asked: Submission, text: str, head: Checkpoint) -> Answer:
        known = self._folder.known(head.origin)
        size, root = (known.head.size, known.head.root) if known else (0, EMPTY_ROOT)
        if asked.old != size:
            if head.size == size and head.root != root:
                self._keep(asked, head, _FORKED)
            log.info("%s: asked for %d after %d, %d is known", head.origin, head.size, asked.old, size)
            return Answer(409, f"{size}\n", SIZE_TYPE)
        if not verify_consistency(size, root, head.size, head.root, asked.proof):
            fault = _FORKED if head.size == size and head.root != root else _UNPROVEN
            self._keep(asked, head, fault)
            return Answer(422, f"{fault}\n")
        at = int(self._clock())
        if known and at < known.at:  # said, and not smoothed over: an invented time would be a false statement
            log.warning("the clock has gone back: %s was cosigned %d s from now", head.origin, known.at - at)
        line = cosign(text, self._folder.name, self._folder.private, at)
        # Only the log's own signatures are kept beside ours: others were not looked at.
        self._folder.save(head.origin, f"{text}\n{_signatures(asked.note, self._folder.keys(head.origin))}{line}")
        self._folder.drop_refused(head)
        log.info("%s: cosigned %d after %d", head.origin, head.size, size)
        return Answer(200, line)

    def _keep(self, asked: Submission, head: Checkpoint, fault: str) -> None:
        """The log signed what does not fit: perhaps a wrong proof, perhaps another history."""
        kept = self._folder.keep_refused(head, asked.note, forked=fault == _FORKED)
        where = f"kept in {kept}" if kept else "not kept: there are enough of its kind"
        log.error("%s: refused size %d: %s; %s", head.origin, head.size, fault, where)


def _unsigned(note: str, keys: tuple[VerifierKey, ...]) -> str | None:
    """What is wrong with the log's signatures; None when one of its keys signed and none signed wrongly."""
    signed = False
    missing = "no key of the log has signed the checkpoint"
    names = {(line.name, line.raw[:4]) for line in split_note(note)[1]}
    for key in keys:
        if (key.name, key.id) not in names:
            continue
        try:
            open_note(note, key)
        except NoteError as error:
            return str(error)
        signed = True
    return None if signed else missing


def _signatures(note: str, keys: tuple[VerifierKey, ...]) -> str:
    known = {(key.name, key.id) for key in keys}
    return "".join(str(line) for line in split_note(note)[1] if (line.name, line.raw[:4]) in known)


def _broken(error: FolderError | OSError) -> Answer:
    why = f"{error}; {error.fix}" if isinstance(error, FolderError) else str(error)
    log.error("nothing is cosigned: %s", why)
    return Answer(503, "the witness cannot keep what it sees now\n")


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}…"
