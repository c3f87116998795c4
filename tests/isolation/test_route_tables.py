"""Every route says whose data it is about. The matrices beside this are made from the same tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from litestar import Litestar
from litestar.handlers import BaseRouteHandler

from gateway.api.admin.app import admin_app
from gateway.api.admin.caller import OPERATION, PUBLIC
from gateway.api.admin.dependencies import AdminDependencies
from gateway.api.data.routes import ROUTES
from gateway.api.relay_control import RELAYED
from gateway.install import initialize
from gateway.serve import SETTINGS_VARIABLE
from gateway.worker import worker
from policies.facts import Role
from tenants.roles import ALLOWED, Operation

TENANCIES = {"token", "none"}
OWN = {Operation.ME_READ} | {operation for operation in Operation if operation.startswith("own_")}


def handlers(app: Litestar) -> Iterator[tuple[str, BaseRouteHandler]]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", None) or (cast(Any, route).route_handler,):
            if getattr(handler, "http_methods", None) != {"OPTIONS"}:  # Litestar's own: methods, and no data
                yield route.path, handler


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Litestar:
    """The application of a worker, made as a worker makes it and not started."""
    installed = initialize(
        tmp_path / "home", operator_email="o@orgate.test", org="acme", owner_email="o@acme.test"
    )
    monkeypatch.setenv(SETTINGS_VARIABLE, str(installed.settings))
    monkeypatch.setattr("gateway.begin.configure_logging", lambda level: None)
    return worker()


def test_every_route_of_the_public_listener_says_where_its_organization_comes_from(public: Litestar) -> None:
    found = {path: handler.opt.get("tenancy") for path, handler in handlers(public)}
    assert [path for path, tenancy in found.items() if tenancy not in TENANCIES] == []
    table = {route.path: route.tenancy for route in ROUTES}
    assert {path: tenancy for path, tenancy in found.items() if tenancy == "token"} == table
    assert set(found) - set(table) == {path.removesuffix("/{org:str}") for path in RELAYED} | {"/livez", "/readyz"}


def test_every_route_of_the_admin_listener_names_its_operation_or_is_public() -> None:
    """A route of one organization has it in its path, where the guard looks. The others are for operators alone,
    or about the caller and nobody else: those are beneath `/me`, and no other operation is."""
    apart = set()
    for path, handler in handlers(admin_app(cast(AdminDependencies, object()))):
        operation: Operation | None = handler.opt.get(OPERATION)
        if operation is None:
            assert handler.opt.get(PUBLIC) is True, path
        elif not path.startswith(("/admin/v1/orgs/{org:str}", "/orgs/{org:str}")):
            apart.add(operation)
            beneath = path.startswith("/admin/v1/me")
            assert (operation in OWN) if beneath else not operation.startswith("own_"), path
    assert {operation for operation in apart if ALLOWED[operation] != {Role.OPERATOR}} == OWN
