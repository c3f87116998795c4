"""One gateway with the real HAProxy before it, for all tests of this folder that stop neither."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.gateway.world import World, populate
from tests.kit.certs import Pki
from tests.kit.front import Front
from tests.kit.gateway import RunningGateway


@pytest.fixture(scope="module")
def world(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with RunningGateway(tmp_path_factory.mktemp("behind") / "home") as gateway:
        yield populate(gateway, pki)


@pytest.fixture(scope="module")
def front(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with Front(world.gateway, tmp_path_factory.mktemp("front")) as front:
        yield front
