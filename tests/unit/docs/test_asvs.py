"""The table of OWASP ASVS: whole, and what it names as shown is shown by a test that exists."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
TABLE = REPOSITORY / "docs" / "security" / "asvs.md"
SECTIONS = {
    **{"6.1": 3, "6.2": 12, "6.3": 8, "6.4": 6, "6.5": 8, "6.6": 4, "6.7": 2, "6.8": 4},
    **{"7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 3, "7.6": 2},
    **{"8.1": 4, "8.2": 4, "8.3": 3, "8.4": 2},
    **{"9.1": 3, "9.2": 4},
    **{"10.1": 2, "10.2": 3, "10.3": 5, "10.4": 16, "10.5": 5, "10.6": 2, "10.7": 3},
}
"""Section of ASVS 5.0 → how many requirements it has."""

_ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| ([^|]+) \| (met|partly|not met|n/a) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
_PASSWORD = re.compile(r"<input[^>]*name=\"[a-z_]*password[a-z_]*\"[^>]*>")


def rows() -> list[tuple[str, str, str, str]]:
    return _ROW.findall(TABLE.read_text())


@cache
def defined_in(file: str) -> frozenset[str]:
    tree = ast.parse((REPOSITORY / "tests" / file).read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_no_requirement_is_left_out() -> None:
    expected = chain.from_iterable(
        (f"{section}.{number}" for number in range(1, count + 1)) for section, count in SECTIONS.items()
    )
    assert [row[0] for row in rows()] == list(expected)


def test_what_is_met_names_tests_that_exist_and_the_rest_a_reason() -> None:
    for number, _, status, why in rows():
        named = _TEST.findall(why)
        if status in {"met", "partly"}:
            assert named, f"{number} names no test"
        if status != "met":
            assert _TEST.sub("", why).strip("; "), f"{number} gives no reason"
        for file, name in named:
            assert name in defined_in(file), f"{number}: {file} has no {name}"


def test_the_sum_is_right() -> None:
    counted = Counter(row[2] for row in rows())
    said = (
        f"Of {counted.total()} requirements {counted['met']} are met, {counted['partly']} partly, "
        f"{counted['not met']} are not, and {counted['n/a']} do not apply."
    )
    assert said in TABLE.read_text()


def test_passwords_are_masked_and_managers_may_fill_them_in() -> None:
    pages = (REPOSITORY / "gateway" / "api" / "oauth").glob("*.html")
    fields = [field for page in pages for field in _PASSWORD.findall(page.read_text())]
    assert len(fields) > 5
    for field in fields:
        assert 'type="password"' in field
        assert re.search(r'autocomplete="(?:current|new)-password"', field), field
        assert "onpaste" not in field
