"""Starts builds that are broken on purpose, and has the proof look at each.

One gateway is furnished and stopped; every mutant is started on a copy of what it left on disk, so that none sees
what another one spoilt, and nobody signs in again.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.isolation import hooked
from tests.isolation.matrix import Fault, Matrix
from tests.isolation.model import Outside
from tests.isolation.mutants import MUTANTS, Mutant
from tests.isolation.names import NAMES
from tests.isolation.orgs import MINT, World, furnish
from tests.isolation.table import Route, read
from tests.kit.gateway import RunningGateway
from tests.kit.redis import RedisServer


@dataclass(frozen=True)
class Caught:
    """`by`: the first fault that the proof found in this build; None: it got past."""

    mutant: Mutant
    by: Fault | None
    requests: int


@dataclass
class Template:
    world: World
    routes: Sequence[Route]
    folder: Path

    def clone(self, broken: str, settings: dict[str, str]) -> World:
        """The same world on a gateway that is not started yet."""
        furnished = self.world.gateway
        home = self.folder / (broken or "sound")
        shutil.copytree(furnished.home, home, ignore=shutil.ignore_patterns("*.sock", "run"))
        gateway = copy.copy(furnished)
        gateway.home, gateway.log, gateway.process = home, home / "serve.log", None
        inside = furnished.installed.settings.relative_to(furnished.home)
        gateway.installed = dataclasses.replace(furnished.installed, settings=home / inside)
        gateway.settings = {**furnished.settings, **settings, **hooked.environment(broken=broken)}
        gateway.log.unlink(missing_ok=True)
        orgs = {name: copy.copy(planted) for name, planted in self.world.orgs.items()}
        for planted in orgs.values():
            planted.credentials = dict(planted.credentials)
        return dataclasses.replace(self.world, gateway=gateway, orgs=orgs)


def template(folder: Path, outside: Outside, names: tuple[str, ...] = NAMES[:2]) -> Template:
    """Furnishes a gateway of its own."""
    routes = folder / "routes"
    routes.mkdir(parents=True)
    settings = {"ORGATE_SECRETS__MINT_COMMANDS": MINT, "ORGATE_TOKENS__ACCESS_S": "1800"}
    gateway = RunningGateway(folder / "furnished", settings={**settings, **hooked.environment(routes)})
    try:
        gateway.start()
        world = furnish(gateway, outside, names)
    finally:
        gateway.stop()
    return Template(world, read(routes), folder)


def copied(world: World, routes: Sequence[Route], folder: Path) -> Template:
    """Of a gateway that is running, and has to end: copies listen where it did."""
    world.gateway.stop()
    return Template(world, routes, folder)


@contextmanager
def started(made: Template, broken: str, redis: RedisServer | None = None) -> Iterator[World]:
    settings = {} if redis is None else limits_in(redis)
    world = made.clone(broken, settings)
    world.outside.came.clear()
    world.redis = redis
    try:
        world.gateway.start()
        yield world
    finally:
        world.gateway.stop()
        shutil.rmtree(world.gateway.home)


def limits_in(redis: RedisServer) -> dict[str, str]:
    return {"ORGATE_LIMITS__STORE": "redis", "ORGATE_LIMITS__ADDRESSES": redis.address}


def judge(made: Template, one: Mutant, redis: RedisServer | None = None) -> Caught:
    with started(made, one.name, redis if one.redis else None) as world:
        matrix = Matrix(world, made.routes, one.routes)
        assert f"{hooked.DONE} {one.name}" in world.gateway.log.read_text(), world.gateway.log.read_text()
        one.catches(matrix)
        matrix.close()
        return Caught(one, next(iter(matrix.ledger.faults), None), matrix.ledger.requests)


def sound(made: Template, names: Iterable[str], redis: RedisServer | None = None) -> list[Fault]:
    """What the same looks find in a build that is not broken: nothing, or they prove nothing."""
    found: list[Fault] = []
    with started(made, "", redis) as world:
        last = []
        for name in names:
            one = MUTANTS[name]
            if one.part == "audit files":  # it stops the gateway
                last.append(one)
                continue
            matrix = Matrix(world, made.routes, one.routes)
            one.catches(matrix)
            found += matrix.ledger.faults
        for one in last:
            matrix = Matrix(world, made.routes, one.routes)
            one.catches(matrix)
            found += matrix.ledger.faults
    return found
