"""Rules from a file: all faults at once, a plan never laxer on the way, a second run that does nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from cli.policy import plan
from policies.facts import Action, Role
from policies.rules import Effect
from tenants.ids import OrgId
from tenants.models import OrgRule
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli


def _rule(name: str, effect: Effect, models: tuple[str, ...] = ("*",), version: int = 1) -> OrgRule:
    return OrgRule(OrgId("acme"), name, effect, (Role.MEMBER,), (Action.CHAT,), models, version)


def test_denials_come_first_and_are_lifted_last() -> None:
    standing = [
        _rule("old-deny", Effect.DENY),
        _rule("old-allow", Effect.ALLOW),
        _rule("same", Effect.ALLOW, version=4),
    ]
    wanted = [
        _rule("new-allow", Effect.ALLOW),
        _rule("new-deny", Effect.DENY),
        _rule("same", Effect.ALLOW, ("a",)),
    ]
    steps = [(change.step, change.rule.name) for change in plan(standing, wanted)]
    assert steps == [
        ("add", "new-deny"),
        ("delete", "old-allow"),
        ("change", "same"),
        ("add", "new-allow"),
        ("delete", "old-deny"),
    ]
    assert plan(standing, wanted)[2].version == 4
    assert all(before != after for before, after in pairwise(steps))
    assert plan(standing, standing) == []


def test_apply_shows_then_does_and_a_second_time_nothing(
    signed_in: Cli, plane: ControlPlane, tmp_path: Path
) -> None:
    plane.put("acme", "rules", "gone", effect="allow", roles=["member"], actions=["chat"], models=["*"])
    file = tmp_path / "rules.yaml"
    file.write_text(
        "rules:\n- {name: no-gpt, effect: deny, roles: [member], actions: [chat], models: ['gpt-*']}\n"
    )
    said = signed_in("policy", "apply", str(file), "--yes")
    assert said.code == 0
    assert "+ no-gpt: deny member · chat · gpt-*" in said.err
    assert "- gone: allow" in said.err
    assert list(plane.items["acme", "rules"]) == ["no-gpt"]
    count = len(plane.writes)
    assert "already" in signed_in("policy", "apply", str(file), "--yes").err
    assert len(plane.writes) == count


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_what_list_prints_apply_takes(signed_in: Cli, plane: ControlPlane, tmp_path: Path, form: str) -> None:
    plane.put("acme", "rules", "r", effect="allow", roles=["member"], actions=["chat"], models=["*"])
    file = tmp_path / "rules"
    file.write_text(signed_in("policy", "list", "-o", form).out)
    assert signed_in("policy", "apply", str(file), "--yes").code == 0
    assert plane.writes == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {name: a, effect: perhaps, roles: [member], actions: [chat], models: []}", ["rule 1", "$.effect"]),
        ("- {name: a, effect: deny, roles: [king], actions: [], models: []}\n- {name: b}", ["$.roles", "rule 2"]),
        ("- {name: ../a, effect: deny, roles: [], actions: [], models: []}", ["rule '../a'"]),
        ("- &a {name: a, effect: deny, roles: [], actions: [], models: []}\n- *a", ["twice"]),
        ("name: a", ["no list"]),
        ("- [", ["neither YAML nor JSON"]),
        ("!!python/object/apply:os.system [id]", ["neither YAML nor JSON"]),
    ],
)
def test_faulty_files_are_refused_whole(
    signed_in: Cli, plane: ControlPlane, tmp_path: Path, text: str, says: list[str]
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    said = signed_in("policy", "apply", str(file), "--yes")
    assert said.code == 2
    assert all(word in said.err for word in says), said.err
    assert plane.writes == []


def test_a_missing_file(signed_in: Cli) -> None:
    assert signed_in("policy", "apply", "none.yaml", "--yes").code == 2
