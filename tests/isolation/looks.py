"""What the proof looks at to find a build that is broken: the parts of it, by what was broken."""

from __future__ import annotations

import itertools

from tests.isolation import behaviour, public, residue
from tests.isolation.matrix import Matrix
from tests.isolation.names import SHARED, secret, word
from tests.isolation.orgs import session

_COUNT = itertools.count()


def pair(matrix: Matrix) -> tuple[str, str]:
    first, second = list(matrix.world.orgs)[:2]
    return second, first


def strangers(matrix: Matrix) -> None:
    matrix.strangers([pair(matrix)], every=4)


def residents(matrix: Matrix) -> None:
    matrix.residents(matrix.world.orgs, roles=("auditor", "owner"))


def data(matrix: Matrix) -> None:
    """Routes are few when a mutant says which."""
    public.data(matrix, [pair(matrix)])


def cookies(matrix: Matrix) -> None:
    """Sessions are in the control process's memory: this one has not seen any yet."""
    for planted in matrix.world.orgs.values():
        planted.credentials["session"] = {"admin": {"cookie": session(matrix.world, planted)}}
    strangers(matrix)


def delivered(matrix: Matrix) -> None:
    act(matrix)
    behaviour.delivered(matrix)


def introspection(matrix: Matrix) -> None:
    public.relayed(matrix, *pair(matrix), every=30)


def files(matrix: Matrix) -> None:
    act(matrix)
    matrix.world.gateway.stop()
    residue.files(matrix)
    residue.stored(matrix)


def log(matrix: Matrix) -> None:
    act(matrix)
    residue.told(matrix, matrix.world.gateway.log)


def act(matrix: Matrix) -> None:
    """Something new in every organization, a secret among it."""
    name = f"acted-{next(_COUNT)}"
    for org, planted in matrix.world.orgs.items():
        planted.post("teams", {"name": name, "title": f"{word(org)} acted"})
        planted.put(f"upstreams/{SHARED}/key", {"key": f"sk-{secret(org)}-new"})
        matrix.world.outside.keys[f"sk-{secret(org)}-new"] = org


def usage(matrix: Matrix) -> None:
    behaviour.completions(matrix)
    behaviour.usage(matrix)


def redis(matrix: Matrix) -> None:
    behaviour.completions(matrix)
    assert matrix.world.redis is not None
    residue.redis(matrix, matrix.world.redis)
