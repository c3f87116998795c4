"""One gateway for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.isolation.place import MINT, Place, furnish
from tests.kit.gateway import RunningGateway


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    settings = {"ORGATE_SECRETS__MINT_COMMANDS": MINT}
    with RunningGateway(tmp_path_factory.mktemp("isolation") / "home", settings=settings) as gateway:
        yield furnish(gateway)
