"""`python -m tests.isolation [full|small]`: the proof of isolation at full size, and builds that it has to catch.

A gateway of a control process and two workers with limits in Redis, five organizations, every credential against
every operation over real sockets. Prints tables, then one line of JSON; exits 1 on any fault.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.isolation import behaviour, hooked, public, residue
from tests.isolation.broken import Caught, judge, limits_in, sound, template
from tests.isolation.matrix import Fault, Matrix, iterate_pairs
from tests.isolation.model import Outside, outside
from tests.isolation.mutants import MUTANTS
from tests.isolation.names import NAMES
from tests.isolation.orgs import MINT, furnish
from tests.isolation.table import read
from tests.kit.gateway import RunningGateway
from tests.kit.redis import RedisServer, redis_server

LEAST = 20_000
"""Requests of a full run, at least."""
SIZES = {"full": (NAMES, 3, list(MUTANTS)), "small": (NAMES[:2], 30, list(MUTANTS)[::6])}
"""Organizations, every which credential a route meets, mutants."""


@dataclass
class Figures:
    requests: int = 0
    routes_registered: int = 0
    routes_tested: int = 0
    canary_bytes: int = 0
    oracles: int = 0
    organizations: int = 0
    credentials: int = 0
    mutants: int = 0
    mutants_caught: int = 0
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    caught: list[Caught] = field(default_factory=list)

    def line(self) -> str:
        told = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        return json.dumps({**told, "faults": len(self.faults)})


def proof(folder: Path, out: Outside, redis: RedisServer, size: str, say: Console) -> Figures:
    """The matrix, everybody's own doings, and what is left behind, on a gateway that nothing is wrong with."""
    names, every, _ = SIZES[size]
    routes = folder / "routes"
    routes.mkdir()
    settings = {
        "ORGATE_SECRETS__MINT_COMMANDS": MINT,
        "ORGATE_TOKENS__ACCESS_S": "1800",
        **limits_in(redis),
        **hooked.environment(routes),
    }
    with RunningGateway(folder / "home", workers=2, settings=settings) as gateway:
        world = furnish(gateway, out, names)
        world.redis = redis
        matrix = Matrix(world, read(routes))
        say.print(f"{len(matrix.routes)} routes; {len(names)} organizations are furnished")
        for look in behaviour.ALL:
            look(matrix)
        residue.planted(matrix)
        pairs = list(iterate_pairs(names))
        for number, pair in enumerate(pairs):
            matrix.strangers([pair], every, number)
            public.data(matrix, [pair], min(every, 8), number)
            say.print(f"{matrix.ledger.requests:,} requests: {pair[0]} has asked for what {pair[1]} has")
            if size == "small" or (matrix.ledger.requests >= LEAST and pair[0] == names[-1]):
                break  # everybody has attacked somebody
        matrix.residents(names[:1] if size == "small" else names[:2], every=6 if size == "small" else 1)
        public.relayed(matrix, names[1], names[0])
        matrix.hidden()
        residue.told(matrix, gateway.log)
        residue.redis(matrix, redis)
        matrix.covered()
    matrix.close()
    residue.files(matrix)
    residue.stored(matrix)
    ledger = matrix.ledger
    registered = set(matrix.routes)
    return Figures(
        requests=ledger.requests,
        routes_registered=len(registered),
        routes_tested=len(registered & ledger.tested),
        canary_bytes=ledger.canary_bytes,
        oracles=sum(fault.kind == "oracle" for fault in ledger.faults),
        organizations=len(names),
        credentials=len(ledger.credentials),
        faults=list(ledger.faults),
        statuses=dict(sorted(ledger.statuses.items())),
    )


def show(figures: Figures, say: Console) -> None:
    told = Table(
        "requests", "organizations", "credentials", "routes registered", "tested", "canary bytes", "oracles"
    )
    told.add_row(
        *(
            f"{number:,}"
            for number in (
                figures.requests,
                figures.organizations,
                figures.credentials,
                figures.routes_registered,
                figures.routes_tested,
                figures.canary_bytes,
                figures.oracles,
            )
        )
    )
    say.print(told)
    say.print("answers: " + ", ".join(f"{count:,} × {status}" for status, count in figures.statuses.items()))
    broken = Table("broken on purpose", "where", "caught by")
    for one in figures.caught:
        broken.add_row(one.mutant.name, one.mutant.part, escape(str(one.by)[:140]) if one.by else "[red]nothing")
    say.print(broken)
    kinds = Counter((fault.kind, fault.cell) for fault in figures.faults)
    for (kind, cell), count in itertools.islice(kinds.items(), 60):
        first = next(fault for fault in figures.faults if (fault.kind, fault.cell) == (kind, cell))
        say.print(f"FAULT {count} × {first}", markup=False)


def main(arguments: list[str]) -> int:
    size = arguments[0] if arguments else os.environ.get("SIZE", "") or "full"
    if size not in SIZES:
        print(f"SIZE is one of {', '.join(SIZES)}", file=sys.stderr)
        return 2
    say, begun = Console(stderr=True), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orgate-isolation-") as name, outside() as out:
        folder = Path(name)
        with redis_server() as redis:
            figures = proof(folder, out, redis, size, say)
        with redis_server() as redis:
            made = template(folder / "broken", out)
            mutants = SIZES[size][2]
            figures.faults += sound(made, mutants, redis)
            for mutant in mutants:
                figures.caught.append(judge(made, MUTANTS[mutant], redis))
    figures.mutants = len(figures.caught)
    figures.mutants_caught = sum(one.by is not None for one in figures.caught)
    figures.seconds = round(time.monotonic() - begun, 1)
    show(figures, say)
    print(figures.line())
    enough = size == "small" or figures.requests >= LEAST
    whole = figures.routes_registered == figures.routes_tested and figures.mutants == figures.mutants_caught
    return 0 if not figures.faults and enough and whole else 1
