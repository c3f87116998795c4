"""One running gateway for all tests of this folder that need nothing special of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.gateway.world import World, populate
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway


@pytest.fixture(scope="package")
def world(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # As long as tokens may live: on a slow machine these tests take longer than the quarter of an hour of others.
    settings = {"ORGATE_TOKENS__ACCESS_S": "1800"}
    with RunningGateway(tmp_path_factory.mktemp("gateway") / "home", settings=settings) as gateway:
        yield populate(gateway, pki)
