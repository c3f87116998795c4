"""settings.md: every key, from the model's own JSON schema."""

from __future__ import annotations

from typing import Any

from docs.build.markdown import code, codes, page, table
from gateway.settings import ENV_PREFIX, Settings

_INTRODUCTION = """\
One TOML file, `orgate.toml`, which `orgate init` writes. `orgate serve --settings FILE` reads it at the start,
together with the environment, which wins. All faults are reported at once, each with its key. Relative paths
are under the folder of the file. A change needs a restart; SIGHUP starts the workers again, which read it anew,
and leaves the control process as it is."""

_TRUST = "Whoever can modify this file can point the gateway at another store, another key and another listener."


def render() -> str:
    schema = Settings.model_json_schema()
    blocks = [_INTRODUCTION, _TRUST]
    for name, reference in schema["properties"].items():
        if name == "home":
            continue
        section = _section(schema, reference)
        rows = [_row(name, key, field) for key, field in section["properties"].items()]
        head = ("key", "type", "default", "meaning", "environment")
        blocks += [f"## [{name}]", _about(section), table(head, rows)]
    return page("Settings", "`gateway/settings.py`", *blocks)


def _section(schema: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    target: str = reference.get("$ref") or reference["allOf"][0]["$ref"]
    section: dict[str, Any] = schema["$defs"][target.rsplit("/", 1)[1]]
    return section


def _about(section: dict[str, Any]) -> str:
    return " ".join(str(section.get("description", "")).split())


def _row(section: str, key: str, field: dict[str, Any]) -> tuple[str, ...]:
    return (code(key), _type(field), _shown(field.get("default")), field["description"], _env(section, key))


def _env(section: str, key: str) -> str:
    return code(f"{ENV_PREFIX}{section}__{key}".upper())


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return codes(field["enum"])
    kinds = {"integer": "integer", "number": "number", "array": "list of texts", "boolean": "true or false"}
    kind = kinds.get(field["type"], "text")
    if field.get("format") == "path":
        kind = "path"
    low = field.get("minimum", field.get("exclusiveMinimum"))
    bounds = []
    if low is not None:
        bounds.append(
            f"{'more than' if 'exclusiveMinimum' in field else 'from'} {low:g}" if low < 1e6 else f"from {low}"
        )
    if "maximum" in field:
        bounds.append(f"to {field['maximum']:g}" if field["maximum"] < 1e6 else f"to {field['maximum']}")
    return " ".join([kind, *bounds])


def _shown(default: object) -> str:
    return code(default) if default not in (None, "", [], ()) else "none"
