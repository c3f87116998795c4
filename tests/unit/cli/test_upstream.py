"""`orgate upstream`: what bounds an upstream, from the command line into the body."""

from __future__ import annotations

import json

import pytest

from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

BOUNDS = {"max_in_flight": 32, "max_queue": 0, "connection_age_s": 600, "connection_resets": 240}
OPTIONS = [word for name, value in BOUNDS.items() for word in ("--" + name.replace("_", "-"), str(value))]


def test_create_with_bounds(signed_in: Cli, plane: ControlPlane) -> None:
    said = signed_in("upstream", "create", "vllm", "--url", "https://u.example", *OPTIONS)
    assert said.code == 0, said.err
    body = json.loads(plane.writes[0].body)
    assert {name: body[name] for name in BOUNDS} == BOUNDS


def test_create_without_bounds_takes_the_defaults(signed_in: Cli, plane: ControlPlane) -> None:
    assert signed_in("upstream", "create", "vllm", "--url", "https://u.example").code == 0
    body = json.loads(plane.writes[0].body)
    assert [body[name] for name in BOUNDS] == [0, 64, 3_600, 900]


def test_set_changes_only_what_is_named(signed_in: Cli, plane: ControlPlane) -> None:
    plane.put("acme", "upstreams", "vllm", base_url="https://u.example", connections=8, max_queue=7)
    assert signed_in("upstream", "set", "vllm", *OPTIONS).code == 0
    body = json.loads(plane.writes[0].body)
    assert {name: body[name] for name in BOUNDS} == BOUNDS
    assert body["connections"] == 8
    assert signed_in("upstream", "set", "vllm", "--max-in-flight", "0").code == 0
    assert json.loads(plane.writes[1].body)["max_in_flight"] == 0
    shown = json.loads(signed_in("upstream", "show", "vllm", "-o", "json").out)
    assert shown["connection_resets"] == 240


@pytest.mark.parametrize("option", [word for word in OPTIONS if word.startswith("--")])
def test_bounds_are_not_negative(signed_in: Cli, plane: ControlPlane, option: str) -> None:
    assert signed_in("upstream", "set", "vllm", option, "-1").code == 2
    assert plane.writes == []
