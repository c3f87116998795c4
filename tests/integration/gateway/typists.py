"""An organization on the shared gateway whose own settings a test changes: nobody else's requests heed them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from tests.integration.gateway.bed import Bed, prepare
from tests.integration.gateway.invariants import Asked
from tests.integration.gateway.world import World, invite
from tests.kit.gateway import Session

_numbers = itertools.count(1)


def organize(world: World, **settings: Any) -> World:
    """`world` as an organization of its own sees it, with `settings` of `tenants.models.Org`. Seconds."""
    org = f"typists-{next(_numbers)}"
    world.operator.admin("POST", "/admin/v1/orgs", json={"id": org, "name": org, **settings})
    owner = invite(world.gateway, world.operator, org, "owner", "owner").session
    ada, ben = (invite(world.gateway, owner, org, name, "member") for name in ("ada", "ben"))
    return replace(world, owner=owner, ada=ada, ben=ben)


def settle_on(session: Session, **settings: Any) -> None:
    """Change the organization's own settings. Live on every worker when it returns."""
    path = f"/admin/v1/orgs/{session.org}"
    was = session.admin("GET", path)
    body = {**was.json(), **settings}
    session.admin("PUT", path, json=body, headers={"if-match": was.headers["etag"]})


def type_in(
    bed: Bed,
    headers: dict[str, str],
    *,
    session: Session | None = None,
    path: str = "/v1/completions",
    together: bool = False,
    model: str = "",
    **fields: Any,
) -> Asked:
    """`Bed.ask` with more headers."""
    asked, own, body = prepare(session or bed.world.ada.session, model or bed.model, **fields)
    send = bed.client.request_and_reset if together else bed.client.request
    asked.stream = send("POST", path, [*own, *headers.items()], body)
    bed.asked.append(asked)
    return asked
