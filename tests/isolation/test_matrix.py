"""The proof of isolation at a size that fits into a test suite; `make isolation` asks every cell.

Tests of this file run in their order: what is left behind is looked at when everybody has been at work.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.isolation import behaviour, public, residue
from tests.isolation.matrix import Matrix
from tests.isolation.names import NAMES

EVERY = 40
"""Which credentials a route meets: the owner of another organization always, of the others one in so many."""


@pytest.fixture(autouse=True)
def no_faults(matrix: Matrix) -> None:
    matrix.ledger.faults.clear()


def clean(matrix: Matrix) -> None:
    assert [str(fault) for fault in matrix.ledger.faults] == []


def test_every_column_that_holds_text_has_a_canary_in_it(matrix: Matrix) -> None:
    residue.planted(matrix)
    clean(matrix)


@pytest.mark.parametrize("look", behaviour.ALL, ids=lambda look: look.__name__)
def test_what_is_named_alike_is_not_mixed_up(matrix: Matrix, look: Callable[[Matrix], None]) -> None:
    asked = matrix.ledger.requests
    look(matrix)
    clean(matrix)
    assert matrix.ledger.requests > asked or look is behaviour.delivered


def test_a_stranger_cannot_tell_anothers_from_what_never_existed(matrix: Matrix) -> None:
    matrix.strangers([(NAMES[1], NAMES[0])], EVERY)
    clean(matrix)


def test_the_own_people_see_their_own_and_do_what_their_role_allows(matrix: Matrix) -> None:
    matrix.residents([NAMES[0]], every=6)
    clean(matrix)


def test_no_credential_opens_another_organizations_models(matrix: Matrix) -> None:
    public.data(matrix, [(NAMES[1], NAMES[0])], every=8)
    clean(matrix)


def test_the_endpoints_for_signing_in_tell_nobody_who_exists(matrix: Matrix) -> None:
    public.relayed(matrix, NAMES[1], NAMES[0], every=9)
    clean(matrix)


def test_what_the_bus_serves_is_on_no_listener(matrix: Matrix) -> None:
    matrix.hidden()
    clean(matrix)


def test_every_route_that_is_registered_was_asked_and_says_whose_data_it_is_about(matrix: Matrix) -> None:
    matrix.covered()
    clean(matrix)
    assert len(matrix.ledger.tested) == len(matrix.routes) > 250
    assert len(matrix.ledger.credentials) > 20


def test_nothing_of_an_organization_lies_with_another(matrix: Matrix) -> None:
    residue.told(matrix, matrix.world.gateway.log)
    residue.stored(matrix)
    residue.files(matrix)
    clean(matrix)
