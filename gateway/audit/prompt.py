"""The keyed hash of a prompt: who has a prompt can find out that it was sent, and nobody can read one out of it.

HMAC-SHA-256 (RFC 2104) under a key of the organization's own, over the canonical JSON (RFC 8785) of the prompt's
texts: `{"prompt": [...], "suffix": [...]}`, `{"messages": [...]}` or `{"input": [...]}`, each an array of all
strings in that member of the request's body, in their order. So spacing, escapes and numbers make no difference.
Spelt in base64url without padding (RFC 4648 section 5), 43 characters.

A short prompt can be guessed by whoever may use the key: that is who may ask (`audit_prompt.read`), and each
question is an entry of its own.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.audit.canonical import CanonicalError, canonical
from gateway.texts import texts
from policies.facts import Action

if TYPE_CHECKING:
    from gateway.secret import Secret

MEMBERS: Final[Mapping[Action, tuple[str, ...]]] = {
    Action.COMPLETE: ("prompt", "suffix"),
    Action.CHAT: ("messages",),
    Action.EMBED: ("input",),
}
"""What of a request's body is its prompt."""

MOST: Final = 256 * 1024
"""Bytes of a prompt, as JSON. To hash more, on a loop that serves everybody, could stand it still for a third of a
second; as much as this takes 2 ms, or 12 of many small texts."""


def prompt_hmac(key: Secret, task: Action, fields: Mapping[str, msgspec.Raw]) -> str:
    """`fields`: members of the body, each as JSON. '' where there is no text, as in a prompt given as numbers, or
    more than `MOST`."""
    parts = {name: bytes(fields[name]) for name in MEMBERS.get(task, ()) if name in fields}
    if sum(map(len, parts.values())) > MOST:
        return ""
    try:
        found = {name: texts(part) for name, part in parts.items()}
        if not any(found.values()):
            return ""
        spelt = canonical(found)
    except (CanonicalError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # no text that could be told from another
    return urlsafe_b64encode(hmac.digest(key.reveal(), spelt, "sha256")).rstrip(b"=").decode()
