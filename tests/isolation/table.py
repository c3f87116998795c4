"""The routes of a running gateway, as its own processes wrote them down, and the ids that go into their paths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.api.scim import routes as scim

SCIM = scim.PREFIX
PUBLIC, ADMIN, BUS = "public", "admin", "bus"
RAW_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""A raw handler takes any method and judges it itself: each of these is a cell."""

_SLOT = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, order=True)
class Route:
    """One method of one path. `operation` and `public`: what the admin listener's guard goes by; `tenancy`: where
    the public listener's organization comes from."""

    listener: str
    path: str
    method: str
    raw: bool = False
    operation: str = ""
    public: bool = False
    tenancy: str | None = None

    def __str__(self) -> str:
        return f"{self.listener} {self.method} {self.path}"

    @property
    def slots(self) -> tuple[tuple[str, str], ...]:
        """(name, what it is an id of) of each place in the path: the literal before it says of what."""
        parts = self.path.strip("/").split("/")
        found = []
        for place, part in enumerate(parts):
            if part.startswith("{"):
                under = next((one for one in reversed(parts[:place]) if not one.startswith("{")), "")
                found.append((part.strip("{}"), "orgs" if part == "{org}" else under))
        return tuple(found)

    @property
    def org_in_path(self) -> bool:
        return "{org}" in self.path

    @property
    def opened_by(self) -> str:
        """What kind of credential is looked at there."""
        if self.path.startswith("/scim/"):
            return "scim"
        pages = self.listener == ADMIN and (self.path.startswith("/orgs/") or self.path == "/audit")
        return "pages" if pages else self.listener

    @property
    def annotated(self) -> bool:
        """Whether it says whose data it is about. A route of one organization has it in its path, where the guard
        looks, or in the caller's token; one of nobody says that it is public."""
        if self.listener == PUBLIC:
            return self.tenancy in {"token", "none"}
        return bool(self.operation) or self.public or self.listener == BUS


def read(folder: Path) -> list[Route]:
    """Every route of every application. Workers have the same ones: each is there once."""
    found: set[Route] = set()
    for file in folder.glob("*.json"):
        rows = json.loads(file.read_text())
        paths = {row["path"] for row in rows}
        listener = ADMIN if any(path.startswith("/admin/") for path in paths) else PUBLIC
        listener = BUS if any(path.startswith("/bus/") for path in paths) else listener
        for row in rows:
            if row["path"] == SCIM:  # an application of its own, with a table of its own
                found |= {_scim(one) for one in scim.ROUTES}
                continue
            path = _SLOT.sub(r"{\1}", row["path"])
            for method in RAW_METHODS if row["raw"] else row["methods"]:
                for one in _paths(path, row["below"]):
                    made = Route(
                        listener, one, method, row["raw"], row["operation"], row["public"], row["tenancy"]
                    )
                    if row["raw"] or row["methods"] != ["OPTIONS"]:  # Litestar's own: methods, and no data
                        found.add(made)
    return sorted(found, key=lambda route: (route.listener, route.path, route.method))


def _scim(one: scim.ScimRoute) -> Route:
    path = f"{SCIM}/{{org}}{one.path.rstrip('/')}"
    return Route(ADMIN, path, one.method, operation=str(one.operation), tenancy=one.tenancy)


def _paths(path: str, below: bool) -> Iterator[str]:
    yield path
    if below:
        yield f"{path.rstrip('/')}/{{below}}"
