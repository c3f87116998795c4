"""Price files: decimals stay what was written, each fault is told by its line, and nothing is sent before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tenants.prices import PriceError, nanodollars
from tests.fakes.control_plane import ControlPlane
from tests.fakes.plane_answers import Answer
from tests.unit.cli.conftest import Cli

PATH = "/admin/v1/orgs/acme/prices"
TABLE: dict[str, Any] = {
    "imported": {"org": "acme", "version": 3, "at": 1_800_000_000, "by": "mem_1", "by_org": "acme", "count": 2},
    "prices": [
        {"org": "acme", "model": "gone", "input": 1, "output": 2_500_000_000, "version": 3},
        {"org": "acme", "model": "gpt-code", "input": 150_000_000, "output": 600_000_000, "version": 3},
    ],
}
EMPTY = {"imported": {"org": "acme"}, "prices": []}


def standing(plane: ControlPlane, table: dict[str, Any] = TABLE, times: int = 1) -> None:
    version = table["imported"].get("version", 0)
    for _ in range(times):
        plane.script("GET", PATH, (200, table, {"etag": f'"{version}"'}))
    made = {**TABLE["imported"], "version": version + 1, "count": 1}
    plane.script("PUT", PATH, (200, made, {"etag": f'"{version + 1}"'}))


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("0.15", 150_000_000),
        ("0.000000001", 1),
        ("0.150000000", 150_000_000),
        ("75", 75 * 10**9),
        ("75.00000000000000000000", 75 * 10**9),
        ("0.1", 100_000_000),
        ("9000000", 9 * 10**15),
    ],
)
def test_dollars_are_exact(text: str, nano: int) -> None:
    assert nanodollars(text) == nano


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.15000000000000002", "finer than a nanodollar"),
        ("0.1000000000000000055511151231257827", "finer than a nanodollar"),
        ("-0.15", "negative"),
        ("-0", "negative"),
        ("NaN", "no decimal number"),
        ("inf", "no decimal number"),
        ("1.5e-7", "no decimal number"),
        ("1,50", "no decimal number"),
        ("$1", "no decimal number"),
        (" 1", "no decimal number"),
        ("1.", "no decimal number"),
        (".5", "no decimal number"),
        ("", "no decimal number"),
        ("١", "no decimal number"),
        ("9000000.000000001", "more than 9000000"),
        ("9" * 31, "no decimal number"),
    ],
)
def test_what_is_no_price_says_why(text: str, says: str) -> None:
    with pytest.raises(PriceError, match=says):
        nanodollars(text)


FILES = {
    "p.csv": "\ufeffmodel, input ,output\n\ngpt-code,0.20,0.60\n",
    "p.toml": '[[prices]]\nmodel = "gpt-code"\ninput = 0.20\noutput = "0.60"\n',
    "p.json": '[{"model": "gpt-code", "input": 0.20, "output": "0.6"}]',
}


@pytest.mark.parametrize("name", FILES)
def test_an_import_shows_what_changes_and_asks_before_it_takes_away(
    signed_in: Cli, plane: ControlPlane, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    standing(plane, times=3)
    asked = signed_in("price", "import", name)
    assert asked.code == 2
    for line in (
        "- gone: input $0.000000001, output $2.5",
        "~ gpt-code: input $0.15 → $0.2",
        "Take the price of 1 model away?",
    ):
        assert line in asked.err
    dry = signed_in("price", "import", name, "--dry-run")
    assert (dry.code, plane.writes) == (0, [])
    assert "~ gpt-code: input $0.15 → $0.2" in dry.err
    done = signed_in("price", "import", name, "--yes")
    assert done.code == 0, done.err
    (write,) = plane.writes
    assert write.headers["if-match"] == '"3"'
    assert json.loads(write.body) == {
        "prices": [{"model": "gpt-code", "input": 200_000_000, "output": 600_000_000}]
    }
    assert "prices imported: version 4" in done.err


def test_the_first_import_and_the_same_again(signed_in: Cli, plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("model,output,input\ngpt-code,0.6,0.15\ngone,2.5,0.000000001\n")
    standing(plane, EMPTY)
    assert signed_in("price", "import", "p.csv").code == 0
    assert plane.writes[0].headers["if-match"] == '"0"'
    standing(plane)
    said = signed_in("price", "import", "p.csv")
    assert (said.code, len(plane.writes)) == (0, 1)
    assert "as in the file already" in said.err
    standing(plane)
    again = signed_in("price", "import", "p.csv", "-o", "json")
    assert json.loads(again.out)["version"] == TABLE["imported"]["version"]


FAULTS = {
    "model,input,output\na,0.1,-1\nb,NaN,1\n": [
        "line 2: output -1 is negative",
        "line 3: input NaN is no decimal",
    ],
    "model,input,output\na,0.15000000000000002,1\n": [
        "line 2: input 0.15000000000000002 is finer than a nanodollar"
    ],
    "model,input,output\na,1,1\n\na,2,2\n": ["line 4: 'a' stands twice"],
    "model,input,output,per\na,1,1,k\n": ["line 1: 'per' is no column; the columns are model, input, output"],
    "model,input\na,1\n": ["line 1: the column output is missing"],
    "model,input,output,input\na,1,1,1\n": ["line 1: a column stands twice"],
    "model,input,output\na,1\n": ["line 2: has 2 columns, and the head has 3"],
    "model,input,output\n,1,\n": ["line 2: model is missing", "line 2: output is missing"],
    'model,input,output\n"a\x1b[31m",1,1\n': ["line 2: model is 1 to 200 printable"],
    'model,input,output\n"a,1,1\n': ["line"],
    "": ["it is empty"],
}


@pytest.mark.parametrize("text", FAULTS)
def test_every_fault_of_a_csv_file_is_told_by_its_line(
    signed_in: Cli, plane: ControlPlane, tmp_path: Path, text: str
) -> None:
    (tmp_path / "p.csv").write_text(text)
    said = signed_in("price", "import", "p.csv")
    assert said.code == 2
    for fault in FAULTS[text]:
        assert fault in said.err
    assert "\x1b" not in said.err
    assert plane.seen == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("p.json", '[{"model": "a", "input": NaN, "output": 1}]', "price 1 ('a'): input NaN is no decimal"),
        ("p.json", '[{"model": "a", "input": 1e-7, "output": 1}]', "input 1e-7 is no decimal"),
        ("p.json", '[{"model": "a", "input": true, "output": 1}]', "input is no decimal"),
        ("p.json", '[{"model": "a", "input": -0.5, "output": 1}]', "input -0.5 is negative"),
        ("p.json", '[{"model": "a", "model": "b", "input": 1, "output": 1}]', "'model' stands twice"),
        ("p.json", '[{"model": "a", "input": 1, "output": 1, "x": 1}]', "price 1 ('a'): 'x' is none of"),
        ("p.json", '{"models": []}', "holds no list of prices"),
        ("p.json", "[1]", "holds no list of prices"),
        ("p.json", "{", "no JSON"),
        ("p.json", "[" * 100_000, "no JSON"),
        ("p.toml", "[[prices]]\nmodel = 1\ninput = 1\noutput = 1\n", "price 1: model is"),
        ("p.toml", "prices = 1", "holds no list"),
        ("p.toml", "= 1", "no TOML"),
        ("p.xlsx", "x", "prices are read from .csv, .toml, .json files"),
        ("p.csv", "x" * (1024 * 1024 + 1), "larger than 1024 KiB"),
    ],
)
def test_other_files_name_the_price(
    signed_in: Cli, plane: ControlPlane, tmp_path: Path, name: str, text: str, fault: str
) -> None:
    (tmp_path / name).write_text(text)
    said = signed_in("price", "import", name)
    assert (said.code, fault in said.err) == (2, True), said.err
    assert plane.seen == []


def test_what_cannot_be_read_is_wrong_usage(signed_in: Cli, tmp_path: Path) -> None:
    assert "No such file" in signed_in("price", "import", "nowhere.csv").err
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe")
    assert "UTF-8" in signed_in("price", "import", "p.csv").err


def test_a_list_is_in_dollars_and_can_be_imported_again(
    signed_in: Cli, plane: ControlPlane, tmp_path: Path
) -> None:
    standing(plane, times=4)
    shown = signed_in("price", "list").out.splitlines()
    assert shown[0].split() == ["MODEL", "INPUT", "$/M", "OUTPUT", "$/M"]
    assert shown[2].split() == ["gpt-code", "0.15", "0.6"]
    for form in ("csv", "json"):
        (tmp_path / f"p.{form}").write_text(signed_in("price", "list", "-o", form).out)
    standing(plane, times=2)
    for form in ("csv", "json"):
        assert "as in the file already" in signed_in("price", "import", f"p.{form}").err
    assert json.loads(signed_in("price", "show", "gpt-code", "-o", "json").out) == {
        "model": "gpt-code", "input": "0.15", "output": "0.6",
    }  # fmt: skip


def test_a_model_without_a_price_and_an_old_table(signed_in: Cli, plane: ControlPlane) -> None:
    standing(plane, times=2)
    said = signed_in("price", "show", "other")
    assert (said.code, "platform's price" in said.err) == (1, True)
    assert signed_in("price", "list", "--version", "3").code == 0
    assert plane.seen[-1].query == {"version": "3"}


def test_a_version_that_never_was_is_not_the_organization(signed_in: Cli, plane: ControlPlane) -> None:
    none: Answer = (404, {"title": "Not found", "status": 404, "detail": "none"}, {})
    plane.script("GET", PATH, none, none)
    said = signed_in("price", "list", "--version", "9")
    assert said.code == 1
    assert "version 9 of the prices of 'acme' does not exist" in said.err
    assert "orgate price versions" in said.err
    assert "organization 'acme' does not exist" in signed_in("price", "list").err


def test_versions_are_read_to_the_end(signed_in: Cli, plane: ControlPlane) -> None:
    first = {"items": [TABLE["imported"]], "next": "3"}
    last = {"items": [{**TABLE["imported"], "version": 2, "count": 7}], "next": ""}
    plane.script("GET", PATH + "/versions", (200, first, {}), (200, last, {}))
    lines = signed_in("price", "versions").out.splitlines()
    assert [line.split()[0] for line in lines] == ["VERSION", "3", "2"]
    assert "2027-01-15T08:00:00Z" in lines[1]
    assert plane.seen[-1].query["after"] == "3"
