"""audit-entry.md: the JSON schema of an entry as tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.build.markdown import code, codes, page, table

SCHEMA = Path(__file__).resolve().parents[1] / "reference" / "audit-entry.schema.json"


def render() -> str:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    blocks = [
        schema["description"] + " What the log around it promises: [audit-log.md](audit-log.md).",
        "No field can hold a prompt or an answer.",
    ]
    for kind, title in (
        ("request", "A request"),
        ("unsettled", "A request that was not settled"),
        ("change", "A change"),
    ):
        entry = schema["$defs"][kind]
        rows = [
            _row(schema, name, field, name in entry["required"]) for name, field in entry["properties"].items()
        ]
        blocks += [f"## {title}", entry["description"], table(("field", "type", "always", "meaning"), rows)]
    return page("Audit entry", "[audit-entry.schema.json](audit-entry.schema.json)", *blocks)


def _row(schema: dict[str, Any], name: str, field: dict[str, Any], required: bool) -> tuple[str, ...]:
    resolved = _resolve(schema, field)
    return (code(name), _type(resolved), "yes" if required else "", resolved.get("description", ""))


def _resolve(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    """Follow `$ref`s; what stands beside one wins over what it leads to."""
    while "$ref" in field:
        target: Any = schema
        for part in field["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        field = {**target, **{key: value for key, value in field.items() if key != "$ref"}}
    return field


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return codes(field["enum"])
    if "const" in field:
        return code(field["const"])
    if field["type"] == "string" and "pattern" in field:
        return f"text, {code(field['pattern'])}"
    kind = str(field["type"])
    if kind == "array":
        return "[text, …]" if "items" in field else "[text, integer]"
    return {"string": "text"}.get(kind, kind)
