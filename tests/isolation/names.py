"""The words that everything planted is made of."""

from __future__ import annotations

NAMES = ("acme", "glob", "vqtx", "umbr", "hool")
"""None is part of a word that an answer may have."""

NEVER = "zzzz"
"""As long as the others: not even a length may differ."""
SHARED = "shared"


def word(org: str) -> str:
    """The canary in every text of `org` that its own people may see."""
    return f"zqcan{org}"


def label(org: str) -> str:
    """What ids begin with that `org` gave. Whoever attacks knows them, and leaves them in logs of their own."""
    return f"zqid{org}"


def secret(org: str) -> str:
    """The canary in every secret of `org`: nobody ever sees it again."""
    return f"zqsecret{org}"
