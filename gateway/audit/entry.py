"""What one entry says, schema version 1 (docs/reference/audit-entry.schema.json).

Pure: `from_receipt` and `from_change` make the fields, `Chain.seal` adds `schema`, `index` and `prev`. Names
are GitHub's where its audit log has one (`action` as noun.verb, `actor`, `org`, `@timestamp` in milliseconds,
`_document_id`, `operation_type`, `request_id`). Texts are bounded here, so that a sealed line always fits.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from gateway.audit.canonical import INTEGER_MAX, canonical
from gateway.exchange import LIMITS_MAX, Outcome, Receipt
from policies.facts import Action
from tenants.ids import PLATFORM, InvalidIdError, OrgId, is_member_id, member_ids_in, org_id, rename_members
from tenants.store import Change

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

TEXT_MAX = 512
"""Bytes of one text; a longer one ends in CUT."""
DETAIL_MAX = 48 * 1024
CUT = "…"

Pair = tuple[str, str]
"""An organization and the id of a member of it, as they stand in a receipt or a change."""
NOBODY: Mapping[Pair, str] = {}

Value = str | int | bool | Sequence[str | int] | Mapping[str, str | int | bool | Sequence[str]]

_ACTIONS = {
    Action.COMPLETE: ("completion.create", "create"),
    Action.CHAT: ("chat.create", "create"),
    Action.EMBED: ("embedding.create", "create"),
    Action.LIST_MODELS: ("model.list", "access"),
}
_OPERATIONS = {
    "create": "create",
    "invite": "create",
    "delete": "remove",
    "remove": "remove",
    "expire": "remove",
    "revoke": "remove",
    "list": "access",
    "read": "access",
    "export": "access",
    "simulate": "access",
    "test": "access",
    "access": "access",
    "refused": "access",
    "login": "authentication",
    "logout": "authentication",
    "sign_in": "authentication",
    "use": "authentication",
    "sign_in_failed": "authentication",
    "resume": "restore",
    "restore": "restore",
}


_URLSAFE = bytes.maketrans(b"+/", b"-_")


class Draft(Struct, frozen=True):
    """An entry's fields before it has a place in the log of `org`.

    `boot` and `seq` name where it came from, to make repeats harmless: a worker's spool, or with `boot` ''
    the control store's outbox. `id` is its `_document_id`, the same for every repeat. An `orphan` is an intent
    whose worker died; it gets a number behind `seq` when it gets its place.
    """

    org: OrgId
    boot: str
    seq: int
    id: str
    fields: dict[str, Value]
    orphan: bool = False


def from_receipt(
    receipt: Receipt, boot: str, seq: int, people: Mapping[Pair, str] = NOBODY, intent: int = 0
) -> Draft:
    """The entry of one request. Texts that are empty are left out, and those numbers that came later when they
    are 0; the first numbers and booleans never are, but of an outcome `unknown`, where they are not known.
    `people`: what stands for whom, as `person_in` asked for it. `intent`: as `SpooledReceipt` has it, 0: none.

    One for every request that was ever served, so written out rather than gone over in loops.
    """
    org = _log_of(receipt.org)
    document = _receipt_document(org, boot, seq, intent)
    fields = _figures(receipt)
    fields["@timestamp"] = _integer(receipt.at_us // 1000)
    fields["_document_id"] = document
    fields["action"], fields["operation_type"] = _ACTIONS[receipt.action]
    fields["actor"] = people.get((org, receipt.member)) or _text(receipt.member)
    fields["org"] = org
    fields["outcome"] = receipt.outcome.value
    fields["spool"] = [boot, seq]
    for name, text in (
        ("client", receipt.client),
        ("client_version", receipt.client_version),
        ("error", receipt.error),
        ("limit", receipt.limit),
        ("model", receipt.model),
        ("policy", receipt.policy),
        ("prompt_hmac", receipt.prompt_hmac),
        ("request_id", receipt.request_id),
        ("rule", receipt.rule),
        ("token_id", receipt.token_id),
        ("trace_id", receipt.trace_id),
        ("upstream", receipt.upstream),
        ("upstream_model", receipt.upstream_model),
    ):
        if text:
            fields[name] = _text(text)
    if receipt.limits:
        fields["limits"] = [_text(limit) for limit in receipt.limits[:LIMITS_MAX]]
    return Draft(org, boot, seq, document, fields, receipt.outcome is Outcome.UNKNOWN)


def _figures(receipt: Receipt) -> dict[str, Value]:
    """How it went, in numbers. Of an intent only what was known when it was written."""
    if receipt.outcome is Outcome.UNKNOWN:
        return {"key_version": _integer(receipt.key_version)} if receipt.key_version else {}
    numbers = (
        receipt.bytes_in,
        receipt.bytes_out,
        receipt.completion_tokens,
        receipt.first_byte_us,
        receipt.key_version,
        receipt.overhead_us,
        receipt.prompt_tokens,
        receipt.status,
        receipt.total_us,
    )
    if max(numbers) > INTEGER_MAX or min(numbers) < -INTEGER_MAX:
        numbers = tuple(map(_integer, numbers))  # type: ignore[assignment]  # as many as before
    bytes_in, bytes_out, completion, first_byte, key_version, overhead, prompt, status, total = numbers
    fields: dict[str, Value] = {
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "completion_tokens": completion,
        "first_byte_us": first_byte,
        "key_version": key_version,
        "overhead_us": overhead,
        "prompt_tokens": prompt,
        "sent": receipt.sent,
        "status": status,
        "stream": receipt.stream,
        "tokens_counted": receipt.tokens_counted,
        "total_us": total,
    }
    for name, number in (
        ("cost_nanodollars", receipt.cost_nanodollars),
        ("events", receipt.events),
        ("held_us", receipt.held_us),
        ("queue_us", receipt.queue_us),
        ("relay_us", receipt.relay_us),
        ("stream_us", receipt.stream_us),
    ):
        if number:
            fields[name] = _integer(number)
    return fields


def person_in(receipt: Receipt) -> Pair:
    """Whom a request was by, in the log that it goes to."""
    return _log_of(receipt.org), receipt.member


def people_in(change: Change) -> set[Pair]:
    """Everybody whom a change names: who did it, and wherever the id of a member stands in it."""
    org = _log_of(change.org)
    told = [change.target]
    for value in change.detail.values():
        told += [value] if isinstance(value, str) else [] if isinstance(value, int) else list(map(str, value))
    found: set[Pair] = {(org, member) for text in told for member in member_ids_in(text)}
    if is_member_id(change.actor.member):
        found.add((_log_of(change.actor.org), change.actor.member))
    return found


def from_change(change: Change, people: Mapping[Pair, str] = NOBODY) -> Draft:
    """The entry of one control-plane change. `people`: what stands for whom, as `people_in` asked for it. Its id
    covers what happened, not only its number: a control database that begins anew counts from 1 again, and its
    changes are no repeats."""
    org = _log_of(change.org)
    actor_org = _log_of(change.actor.org)
    target = _renamed(change.target, org, people)
    actor = people.get((actor_org, change.actor.member), change.actor.member)
    # Of what stands in the entry: a digest of a member's id would be something of them that cannot be erased.
    parts = (change.seq, change.at, change.action, target, change.actor.org, actor)
    document = _document(org, "outbox", *parts, change.actor.request_id)
    fields: dict[str, Value] = {
        "@timestamp": _integer(change.at * 1000),
        "_document_id": document,
        "action": _text(change.action),
        "actor": _text(actor),
        "actor_org": _text(change.actor.org),
        "operation_type": _OPERATIONS.get(change.action.rpartition(".")[2], "modify"),
        "org": org,
        "outbox": _integer(change.seq),
        "target": _text(target),
    }
    for name, text in (("client", change.actor.client), ("request_id", change.actor.request_id)):
        if text:
            fields[name] = _text(text)
    if change.detail:
        detail = {_key(key): _value(value, org, people) for key, value in change.detail.items()}
        too_much = len(canonical(detail)) > DETAIL_MAX
        fields["detail"] = {"cut": True, "members": len(detail)} if too_much else detail
    return Draft(org, "", change.seq, document, fields)


@lru_cache(maxsize=4_096)
def _log_of(org: str) -> OrgId:
    """Which log: the organization's own. What carries no usable id is the platform's: never lost, never a path."""
    try:
        return org_id(org)
    except InvalidIdError:
        return PLATFORM


def _document(*parts: object) -> str:
    """132 bits over where the entry came from: repeats have the same id, in any store it is exported to."""
    return _spelt(sha256("\n".join([str(part) for part in parts]).encode("utf-8", "replace")).digest())


def _receipt_document(org: OrgId, boot: str, seq: int, intent: int) -> str:
    """`_document(org, boot, 'intent', intent)`, whatever the request's end; of a receipt without an intent
    `_document(org, boot, seq)`. What all receipts of one worker and organization share is hashed once."""
    hashed = _beginning(org, boot).copy()
    hashed.update(b"intent\n%d" % intent if intent else b"%d" % seq)
    return _spelt(hashed.digest())


@lru_cache(maxsize=4_096)
def _beginning(org: OrgId, boot: str) -> Hash:
    return sha256(f"{org}\n{boot}\n".encode("utf-8", "replace"))


def _spelt(digest: bytes) -> str:
    return b2a_base64(digest, newline=False)[:22].translate(_URLSAFE).decode("ascii")


def _text(value: str) -> str:
    """Whole characters, at most TEXT_MAX bytes."""
    if value.isascii() and len(value) <= TEXT_MAX:
        return value
    raw = value.encode("utf-8", "replace")
    if len(raw) <= TEXT_MAX:
        return raw.decode()
    return raw[: TEXT_MAX - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def _integer(value: int) -> int:
    return max(-INTEGER_MAX, min(INTEGER_MAX, value))


def _key(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64] or "_"


def _renamed(text: str, org: OrgId, people: Mapping[Pair, str]) -> str:
    return rename_members(text, lambda member: people.get((org, member), member))


def _value(
    value: str | int | bool | Sequence[str], org: OrgId, people: Mapping[Pair, str]
) -> str | int | bool | Sequence[str]:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, str):
        return _text(_renamed(value, org, people))
    return [_text(_renamed(str(item), org, people)) for item in value]
