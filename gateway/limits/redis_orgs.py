"""A user of its own for each organization: what signs in for one may touch the keys of no other."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec.structs import replace

from gateway.limits.redis_route import Route
from gateway.limits.redis_server import Server
from gateway.limits.redis_wire import Argument, Login
from gateway.secret import Secret

MOST: Final = 256
"""Organizations with connections of their own at once; of more, those silent for longest give way."""

NOBODY: Final = "_doctor"
"""No organization can be called so: whose keys are tried when an operator asks whether all is well."""


def login_of(login: Login, org: str) -> Login:
    """The organization's user. Its password is HMAC-SHA-256 of its name under the deployment's, in hex."""
    if login.password is None:
        return login
    derived = hmac.new(login.password.reveal(), b"orgate limits " + org.encode(), hashlib.sha256).hexdigest()
    return replace(login, username=f"{login.username}-{org}", password=Secret(derived))


class ByOrg:
    """A `Route` for each organization; `own` is the deployment's, which no organization's keys are open to."""

    apart = True

    def __init__(self, own: Route, open_for: Callable[[str], Route], most: int = MOST) -> None:
        self._own = own
        self._open_for = open_for
        self._most = most
        self._routes: OrderedDict[str, Route] = OrderedDict()
        self._busy: dict[str, int] = {}

    async def run(self, tag: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        if tag == NOBODY:
            return await self._own.run(tag, keys, arguments)
        route = self._routes.get(tag)
        if route is None:
            self._make_room()
            route = self._routes[tag] = self._open_for(tag)
        self._routes.move_to_end(tag)
        self._busy[tag] = self._busy.get(tag, 0) + 1
        try:
            return await route.run(tag, keys, arguments)
        finally:
            self._busy[tag] -= 1
            if not self._busy[tag]:
                del self._busy[tag]

    async def servers(self) -> Sequence[tuple[str, Server]]:
        return await self._own.servers()

    def close(self) -> None:
        for route in (self._own, *self._routes.values()):
            route.close()

    def _make_room(self) -> None:
        """None that somebody waits for is closed: rather one more for a while."""
        if len(self._routes) >= self._most:
            idle = next((tag for tag in self._routes if tag not in self._busy), None)
            if idle is not None:
                self._routes.pop(idle).close()
