"""A gateway to be attacked, and what must hold whatever is done to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.gateway.world import World, populate
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway


@pytest.fixture(scope="package")
def world(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with RunningGateway(tmp_path_factory.mktemp("attacked") / "home") as gateway:
        yield populate(gateway, pki)
