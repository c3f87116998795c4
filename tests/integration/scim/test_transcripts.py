"""What Entra ID, its validator and Okta send, played from files (`tests/transcripts/scim/README.md`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.integration.scim.client import Scim

FOLDER = Path(__file__).resolve().parents[2] / "transcripts" / "scim"
FILES = sorted(FOLDER.glob("*.txt"))


class Exchange(Struct):
    method: str
    path: str
    body: str = ""
    status: int = 0
    expected: str = ""
    kept: tuple[tuple[str, str], ...] = ()


def exchanges(text: str) -> list[Exchange]:
    found: list[Exchange] = []
    answered = True
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith("=> "):
            found[-1].status, answered = int(line[3:]), True
        elif line.startswith("@"):
            name, _, path = line[1:].partition("=")
            found[-1].kept += ((name.strip(), path.strip()),)
        elif line[0].isupper():
            method, _, path = line.partition(" ")
            found.append(Exchange(method, path))
            answered = False
        elif answered:
            found[-1].expected += line
        else:
            found[-1].body += line
    return found


def within(expected: Any, given: Any) -> bool:
    """Whether all of `expected` is in `given`: objects may have more, lists have what they have."""
    if isinstance(expected, dict):
        return isinstance(given, dict) and all(within(each, given.get(name)) for name, each in expected.items())
    if isinstance(expected, list):
        return (
            isinstance(given, list)
            and len(expected) == len(given)
            and all(within(each, other) for each, other in zip(expected, given, strict=True))
        )
    return bool(expected == given)


async def play(acme: Scim, file: Path) -> int:
    known: dict[str, str] = {}

    def filled(text: str) -> str:
        for name, value in known.items():
            text = text.replace("{{" + name + "}}", value)
        assert "{{" not in text, text
        return text

    played = exchanges(file.read_text(encoding="utf-8"))
    for one in played:
        path = filled(one.path)
        body = {"json": json.loads(filled(one.body))} if one.body else {}
        answer = await acme.ask(one.method, path, **body)
        said = f"{file.name}: {one.method} {path}: {answer.status_code} {answer.text}"
        assert answer.status_code == one.status, said
        told: Any = answer.json() if answer.content else None
        assert within(json.loads(filled(one.expected)) if one.expected else None, told) or not one.expected, said
        for name, key in one.kept:
            known[name] = str(told[key])
    return len(played)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_providers_requests(acme: Scim, file: Path) -> None:
    assert await play(acme, file) >= 8


def test_there_are_transcripts_of_both() -> None:
    assert {file.stem.partition("-")[0] for file in FILES} == {"entra", "okta"}


def test_the_player_notices() -> None:
    assert within({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}], "d": 3})
    others: list[Any] = [{"a": []}, {"a": [{"b": 2}]}, {"a": [{"b": 1}, {}]}, {}, None]
    for given in others:
        assert not within({"a": [{"b": 1}]}, given)
    (one,) = exchanges('# x\nPOST /Users\n{"a":\n 1}\n=> 201\n{"id": 1}\n@user = id\n')
    assert (one.method, one.path, one.status, one.kept) == ("POST", "/Users", 201, (("user", "id"),))
    assert (json.loads(one.body), json.loads(one.expected)) == ({"a": 1}, {"id": 1})
