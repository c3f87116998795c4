"""The proof is able to fail: builds that are broken on purpose are caught. `make isolation` starts all of them."""

from __future__ import annotations

import pytest

from tests.isolation.broken import Template, judge
from tests.isolation.mutants import MUTANTS


def test_there_is_a_mutant_for_each_kind_of_place() -> None:
    assert len(MUTANTS) >= 12
    parts = " ".join(mutant.part for mutant in MUTANTS.values())
    for kind in (
        "store",
        "snapshot",
        "cache",
        "pool",
        "limits",
        "stream",
        "export",
        "long poll",
        "guard",
        "answer",
    ):
        assert kind in parts


@pytest.mark.parametrize("name", ["store-reads-any-row", "snapshot-finds-any-alias"])
def test_a_broken_build_is_caught(template: Template, name: str) -> None:
    caught = judge(template, MUTANTS[name])
    assert caught.by is not None, f"{caught.requests} requests found nothing"
    assert caught.by.kind in {"oracle", "bytes", "status"}
