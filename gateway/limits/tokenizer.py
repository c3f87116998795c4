"""OpenAI's `cl100k_base`, offline: the vocabulary is part of this package and is never fetched.

Reading it takes 0.1 s, in which a loop stands still for half of it, and 30 MB. So it is read in a thread, and only
where a limit counts tokens or money. No other tokenizer is needed: what a provider's own makes of the same text is
learned from what it reports (`gateway.limits.tokens`).
Source of the vocabulary: https://github.com/openai/tiktoken (MIT).
"""

from __future__ import annotations

import gzip
import logging
import threading
from base64 import b64decode
from hashlib import sha256
from importlib.resources import files
from io import BytesIO

from tiktoken import Encoding

log = logging.getLogger("orgate.limits")

DIGEST = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
"""SHA-256 of the vocabulary, as tiktoken itself gives it for the file that it would fetch."""

_WORDS = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)


def load() -> Encoding:
    """Read the vocabulary. Raises `ValueError` when it is not the one that it should be."""
    text = gzip.decompress((files("gateway.limits") / "cl100k_base.tiktoken.gz").read_bytes())
    if sha256(text).hexdigest() != DIGEST:
        raise ValueError("the tokenizer's vocabulary is damaged")
    ranks = {b64decode(token): int(rank) for token, rank in map(bytes.split, BytesIO(text))}
    encoding = Encoding("cl100k_base", pat_str=_WORDS, mergeable_ranks=ranks, special_tokens={})
    ranks.clear()  # it has made a table of its own, and keeps this one for what nobody here asks: 12 MB
    return encoding


class Tokenizer:
    """Counts once it has begun and read its vocabulary. Safe in any thread."""

    def __init__(self) -> None:
        self._encoding: Encoding | None = None
        self._reading: threading.Thread | None = None
        self._lock = threading.Lock()

    def count(self, text: str) -> int | None:
        """Tokens of `text`; None before the vocabulary is there. What looks like a special token is text."""
        return None if self._encoding is None else len(self._encoding.encode_ordinary(text))

    def begin(self) -> threading.Thread:
        """Read the vocabulary, unless that has begun. The thread keeps no process from ending."""
        with self._lock:
            if self._reading is None:
                self._reading = threading.Thread(target=self._read, name="tokenizer", daemon=True)
                self._reading.start()
            return self._reading

    def _read(self) -> None:
        try:
            self._encoding = load()
        except (OSError, ValueError):
            # Not a reason to serve nothing: a rule of thumb stands in for it, and providers' reports do.
            log.exception("the tokenizer's vocabulary cannot be read: tokens are estimated from bytes")


ours = Tokenizer()
"""One for all of a process: a second one would be another 30 MB."""
