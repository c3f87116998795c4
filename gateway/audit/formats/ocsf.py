"""Open Cybersecurity Schema Framework 1.8.0, one event as JSON: API Activity for requests and reads,
Authentication for sign-ins, Account Change for members, Entity Management for all else that was changed.

`metadata.uid` is the entry's `_document_id`. What has no attribute there is in `unmapped`, under its own name.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from gateway.audit.formats.context import PRODUCT, Context, Entry, compact, number, refused, severity, text

HEADER = b""
CONTENT_TYPE = "application/jsonl"
VERSION: Final = "1.8.0"

API_ACTIVITY, AUTHENTICATION, ACCOUNT_CHANGE, ENTITY_MANAGEMENT = 6003, 3002, 3001, 3004
OTHER: Final = 99
ANONYMOUS: Final = "anonymous"
_CLASSES: Final = {
    API_ACTIVITY: "API Activity",
    AUTHENTICATION: "Authentication",
    ACCOUNT_CHANGE: "Account Change",
    ENTITY_MANAGEMENT: "Entity Management",
}
_CATEGORIES: Final = {3: "Identity & Access Management", 6: "Application Activity"}
_SEVERITIES: Final = {1: "Informational", 2: "Low", 3: "Medium"}

_LOGON, _LOGOFF = (1, "Logon"), (2, "Logoff")
_CREATE, _READ, _UPDATE, _DELETE = (1, "Create"), (2, "Read"), (3, "Update"), (4, "Delete")
_CRUD: Final = {"create": _CREATE, "access": _READ, "modify": _UPDATE, "remove": _DELETE, "restore": _UPDATE}
_AUTHENTICATED: Final = {"create": _LOGON, "refuse": _LOGON, "login": _LOGON, "revoke": _LOGOFF, "logout": _LOGOFF}
_ACCOUNT: Final = {
    "create": (1, "Create"),
    "resume": (2, "Enable"),
    "suspend": (5, "Disable"),
    "offboard": (5, "Disable"),
    "delete": (6, "Delete"),
    "erase": (6, "Delete"),
}
_ENTITY: Final = {"suspend": (12, "Suspend"), "resume": (13, "Resume")}
_TYPES: Final = {"team": (3, "Group"), "org": (4, "Organization"), "rule": (5, "Policy")}
_STATUS: Final = {
    "served": (1, "Success"),
    "refused": (2, "Failure"),
    "cut": (2, "Failure"),
    "revoked": (2, "Failure"),
    "failed": (2, "Failure"),
    "upstream_error": (2, "Failure"),
    "upstream_timeout": (2, "Failure"),
    "unknown": (0, "Unknown"),
}
"""Every other outcome is OTHER under its own name: the caller went away, which is neither."""
_ABOUT: Final = ("admin", "operator")
"""A refusal, or an operator from outside: what it was about, its target, is an operation itself: `limit.list`."""
_MACHINE: Final = ("system", "installer")

_PLACED: Final = frozenset(
    (
        "@timestamp",
        "_document_id",
        "action",
        "actor",
        "actor_org",
        "client",
        "error",
        "index",
        "model",
        "org",
        "outcome",
        "request_id",
        "schema",
        "status",
        "target",
        "trace_id",
    )
)
_MODEL: Final = frozenset(("upstream", "upstream_model", "prompt_tokens", "completion_tokens"))
"""Placed by `_ai`, where it has something to say."""


class _Kind(Struct, frozen=True):
    """Which event an entry becomes: its class, the activity's number and name."""

    uid: int
    activity: tuple[int, str]


def convert(entry: Entry, *, ctx: Context) -> bytes:
    kind, action = _kind(entry), text(entry, "action")
    category, level, metadata = kind.uid // 1_000, severity(entry), _metadata(entry, ctx)
    event: dict[str, object] = {
        "activity_id": kind.activity[0],
        "activity_name": kind.activity[1],
        "category_uid": category,
        "category_name": _CATEGORIES[category],
        "class_uid": kind.uid,
        "class_name": _CLASSES[kind.uid],
        "type_uid": kind.uid * 100 + kind.activity[0],
        "type_name": f"{_CLASSES[kind.uid]}: {'Other' if kind.activity[0] == OTHER else kind.activity[1]}",
        "time": number(entry, "@timestamp") or 0,
        "severity_id": int(level),
        "severity": _SEVERITIES[level],
        "message": " ".join(
            word
            for word in (action, text(entry, "target") or text(entry, "model"), text(entry, "outcome"))
            if word
        ),
        "metadata": metadata,
        "actor": _actor(entry),
        "src_endpoint": {"name": text(entry, "client") or "unknown"},
    }
    event["status_id"], event["status"] = _status(entry)
    if (status := number(entry, "status")) is not None:
        event["status_code"] = str(status)
    if error := text(entry, "error"):
        event["status_detail"] = error
    event.update(_subject(entry, kind))
    ai = _ai(entry)
    event.update(ai)
    if profiles := [name for name, has in (("trace", "trace" in event), ("ai_operation", ai)) if has]:
        metadata["profiles"] = profiles
    placed = _PLACED | _MODEL if ai else _PLACED
    if rest := {n: value for n, value in entry.items() if n not in placed or not isinstance(value, str | int)}:
        event["unmapped"] = rest
    return compact(event).encode()


def _kind(entry: Entry) -> _Kind:
    noun, _, verb = text(entry, "action").rpartition(".")
    operation = text(entry, "operation_type")
    if noun in _ABOUT:
        return _Kind(API_ACTIVITY, (OTHER, verb))
    if "outcome" in entry or operation == "access":
        return _Kind(API_ACTIVITY, _CRUD.get(operation, (OTHER, verb or "Other")))
    if noun == "session" or operation == "authentication":
        return _Kind(AUTHENTICATION, _AUTHENTICATED.get(verb, (OTHER, verb)))
    if noun in ("member", "person"):
        return _Kind(ACCOUNT_CHANGE, _ACCOUNT.get(verb, (OTHER, verb)))
    return _Kind(ENTITY_MANAGEMENT, _ENTITY.get(verb) or _CRUD.get(operation, (OTHER, verb or "Other")))


def _metadata(entry: Entry, ctx: Context) -> dict[str, object]:
    metadata: dict[str, object] = {
        "version": VERSION,
        "uid": text(entry, "_document_id"),
        "original_event_uid": text(entry, "_document_id"),
        "event_code": text(entry, "action"),
        "product": {"name": PRODUCT, "vendor_name": PRODUCT, "version": ctx.version},
        "log_name": "audit",
        "tenant_uid": text(entry, "org"),
    }
    if ctx.host:
        metadata["log_provider"] = ctx.host
    if (schema := number(entry, "schema")) is not None:
        metadata["log_version"] = str(schema)
    if (index := number(entry, "index")) is not None:
        metadata["sequence"] = index
    if request := text(entry, "request_id"):
        metadata["correlation_uid"] = request
    return metadata


def _actor(entry: Entry) -> dict[str, object]:
    actor: dict[str, object] = {
        "user": {
            **_user(text(entry, "actor")),
            "org": {"uid": text(entry, "actor_org") or text(entry, "org") or "unknown"},
        }
    }
    if client := text(entry, "client"):
        actor["app_name"] = client
    return actor


def _user(name: str) -> dict[str, object]:
    if not name:
        return {"name": ANONYMOUS, "type_id": 0, "type": "Unknown"}
    if name in _MACHINE:
        return {"name": name, "uid": name, "type_id": 3, "type": "System"}
    return {"uid": name, "type_id": 1, "type": "User"}


def _status(entry: Entry) -> tuple[int, str]:
    if outcome := text(entry, "outcome"):
        return _STATUS.get(outcome, (OTHER, outcome))
    return (2, "Failure") if refused(entry) else (1, "Success")


def _subject(entry: Entry, kind: _Kind) -> dict[str, object]:
    """What the event was done to, where its class has a place for it."""
    noun = text(entry, "action").rpartition(".")[0]
    target = text(entry, "target")
    if kind.uid == ENTITY_MANAGEMENT:
        number_, name = _TYPES.get(noun, (OTHER, noun or "other"))
        return {"entity": {"uid": target or noun or "unknown", "type_id": number_, "type": name}}
    if kind.uid == ACCOUNT_CHANGE:
        return {"user": _user(target)}
    if kind.uid == AUTHENTICATION:
        whom = target if target and target != ANONYMOUS else text(entry, "actor")
        service = {"service": {"name": PRODUCT}, "auth_protocol_id": 6, "auth_protocol": "OAUTH 2.0"}
        return {"user": _user(whom), **service}
    subject: dict[str, object] = {"api": _api(entry)}
    if model := text(entry, "model"):
        subject["resources"] = [{"name": model, "type": "model"}]
    elif target and noun not in _ABOUT:
        subject["resources"] = [{"name": target, "type": noun or "other"}]
    if (trace := text(entry, "trace_id")) and "outcome" in entry:
        subject["trace"] = {"uid": trace}
    return subject


def _ai(entry: Entry) -> dict[str, object]:
    """The profile `ai_operation`: which model served, of whom, and the tokens; nothing when none did."""
    provider, name = text(entry, "upstream"), text(entry, "upstream_model") or text(entry, "model")
    if not (provider and name and "outcome" in entry):
        return {}
    prompt, completion = number(entry, "prompt_tokens") or 0, number(entry, "completion_tokens") or 0
    return {
        "ai_model": {"ai_provider": provider, "name": name},
        "message_context": {
            "service": {"name": PRODUCT},
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }


def _api(entry: Entry) -> dict[str, object]:
    action = text(entry, "action")
    about = text(entry, "target") if action.rpartition(".")[0] in _ABOUT else action
    api: dict[str, object] = {
        "operation": about or action or "unknown",
        "service": {"name": PRODUCT},
        "version": "v1",
    }
    if request := text(entry, "request_id"):
        api["request"] = {"uid": request}
    if (status := number(entry, "status")) is not None:
        api["response"] = {"code": status, **({"error": error} if (error := text(entry, "error")) else {})}
    return api
