"""Two organizations, each with a provisioning client, over the real parts of a control process."""

from __future__ import annotations

import pytest

from tests.integration.admin.conftest import template, world
from tests.integration.admin.world import ACME, GLOBEX, World
from tests.integration.scim.client import Scim, provision

__all__ = ["template", "world"]


@pytest.fixture
async def acme(world: World) -> Scim:  # the fixture of that name
    return await provision(world, ACME)


@pytest.fixture
async def globex(world: World) -> Scim:
    return await provision(world, GLOBEX)
