"""Inside a gateway's own processes: writes down which routes each application has, and breaks it on purpose.

Read only through `hook/sitecustomize.py`; the product is the same code as ever, started the same way.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROUTES: Final = "ISOLATION_ROUTES"
"""A folder: every application that is made writes its routes into a file of its own there."""
BROKEN: Final = "ISOLATION_BROKEN"
"""The name of a mutant (`mutants.py`), '' for none."""

DONE: Final = "broken on purpose:"
"""What the gateway's log has when it is: an error in here would leave it sound."""

HOOK: Final = Path(__file__).parent / "hook"
REPOSITORY: Final = Path(__file__).parents[2]


def environment(routes: Path | None = None, broken: str = "") -> dict[str, str]:
    """What a gateway is started with so that this module is there."""
    path = os.pathsep.join([str(HOOK), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return {"PYTHONPATH": path, ROUTES: str(routes or ""), BROKEN: broken}


def install() -> None:
    """In the control process and the workers; the supervisor and the command line serve nothing."""
    if "cli.main" in sys.orig_argv:
        return
    if folder := os.environ.get(ROUTES, ""):
        _record(Path(folder))
    if name := os.environ.get(BROKEN, ""):
        from tests.isolation.mutants import MUTANTS

        MUTANTS[name].break_it()
        sys.stderr.write(f"{DONE} {name}\n")


def _record(folder: Path) -> None:
    from litestar import Litestar

    made = Litestar.__init__

    def recording(self: Litestar, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        rows = [row for route in self.routes for row in _rows(route)]
        target = folder / f"{os.getpid()}-{id(self)}.json"
        beside = target.with_suffix(".part")
        beside.write_text(json.dumps(rows))
        beside.replace(target)

    Litestar.__init__ = recording  # type: ignore[method-assign]


def _rows(route: Any) -> list[Mapping[str, Any]]:
    found = getattr(route, "route_handlers", None) or (route.route_handler,)
    return [
        {
            "path": route.path,
            "methods": sorted(getattr(handler, "http_methods", ())),
            "raw": not hasattr(handler, "http_methods"),
            "below": bool(getattr(handler, "is_mount", False)),
            "operation": str(handler.opt.get("operation") or ""),
            "public": bool(handler.opt.get("public")),
            "tenancy": handler.opt.get("tenancy"),
        }
        for handler in found
    ]
