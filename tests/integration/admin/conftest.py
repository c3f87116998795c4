"""One world a test, copied from one that is populated once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policies.facts import Role
from tenants.models import Member
from tests.integration.admin.world import World, open_world

Template = tuple[Path, dict[tuple[str, Role], Member]]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    folder = tmp_path_factory.mktemp("admin")

    async def populate() -> dict[tuple[str, Role], Member]:
        async with open_world(folder) as world:
            return world.members

    return folder, asyncio.run(populate())


@pytest.fixture
async def world(template: Template, tmp_path: Path) -> AsyncIterator[World]:
    folder, members = template
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    async with open_world(tmp_path, members) as made:
        yield made
