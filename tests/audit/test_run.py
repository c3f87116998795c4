"""The measuring run itself: it notices what it is there for, and ends with its figures."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from gateway.audit.verify import Verdict
from tests.audit import kills, run
from tests.audit.mutations import Mutated
from tests.audit.packs import honest, whole
from tests.audit.run import Report, compare
from tests.audit.spoil import ANY, JSON, NOTES


def test_a_mutation_that_both_take_is_missed(tmp_path: Path) -> None:
    report = Report()
    compare(
        [Mutated("nothing", honest(whole(3)), True), Mutated("signed", honest(whole(2)), False)], tmp_path, report
    )
    assert (report.mutations, report.detected, report.verifiers_disagree) == (1, 0, 0)
    assert (report.resigned, report.resigned_accepted) == (1, 1)
    assert report.examples == ["nothing (alone): taken by the first"]


def test_a_verifier_that_says_otherwise_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "verify_pack", lambda folder, known: Verdict(ok=True))
    report = Report()
    cut = {**honest(whole(3)), "entries.jsonl": b""}
    compare([Mutated("cut", cut, True)], tmp_path, report)
    assert (report.mutations, report.detected, report.verifiers_disagree) == (1, 0, 1)
    assert report.examples[0].startswith("cut (alone): first good, second [")


def test_each_way_to_spoil_does_so() -> None:
    rng = random.Random(1)
    files = honest(whole(12))
    for name, ways in (("entries.jsonl", (*ANY, *JSON)), ("checkpoint", (*ANY, NOTES[0])), ("key", NOTES)):
        for spoil in ways:
            assert any(spoil(rng, files[name]) != files[name] for _ in range(20)), spoil.__name__


@pytest.mark.parametrize(("size", "exits"), [("small", 0), ("huge", 2)])
def test_it_ends_with_a_line_of_figures(
    size: str, exits: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(run.MUTATIONS, "small", 20)
    monkeypatch.setitem(run.ENTRIES, "small", 50)
    monkeypatch.setitem(kills.KILLS, "small", 12)
    monkeypatch.setattr("sys.argv", ["audit", size])
    assert run.main() == exits
    said = capsys.readouterr()
    if exits:
        assert said.err == "SIZE is small or full, not huge\n"
        return
    figures = json.loads(said.out.splitlines()[-1])
    assert {name: figures[name] for name in ("mutations", "detected", "verifiers_disagree", "verify_entries")} == {
        "mutations": 20,
        "detected": 20,
        "verifiers_disagree": 0,
        "verify_entries": 50,
    }
    assert isinstance(figures["verify_1m_s"], float)
    assert figures["kills"] >= 12
    assert {name: figures[name] for name in ("lost", "doubled", "forks")} == dict.fromkeys(
        ("lost", "doubled", "forks"), 0
    )
    assert figures["worst_recovery_s"] > 0
