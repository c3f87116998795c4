"""One gateway for all tests of this folder, and a copy of what it leaves on disk for builds that are broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.isolation import hooked
from tests.isolation.broken import Template, copied
from tests.isolation.matrix import Matrix
from tests.isolation.model import outside
from tests.isolation.names import NAMES
from tests.isolation.orgs import MINT, furnish
from tests.isolation.table import read
from tests.kit.gateway import RunningGateway

BROKEN = Path(__file__).with_name("test_mutants.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Broken builds come last: they are started where the gateway of the other tests listened."""
    last = [item for item in items if item.path == BROKEN]
    items[:] = [*(item for item in items if item not in last), *last]


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    folder = tmp_path_factory.mktemp("isolation")
    routes = folder / "routes"
    routes.mkdir()
    settings = {"ORGATE_SECRETS__MINT_COMMANDS": MINT, **hooked.environment(routes)}
    with outside(NAMES[:2]) as out, RunningGateway(folder / "home", settings=settings) as gateway:
        made = Matrix(furnish(gateway, out, NAMES[:2]), read(routes))
        yield made
        made.close()


@pytest.fixture(scope="session")
def template(matrix: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """To be asked for last: it stops the gateway that the other tests share."""
    return copied(matrix.world, matrix.routes, tmp_path_factory.mktemp("broken"))
