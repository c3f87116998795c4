"""The admin application, made once for all worlds: it has 300 routes, and making it takes longer than most tests.

It is what `admin_app` makes, over dependencies that stand for those of the world that is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from functools import cache
from typing import Any

from litestar import Litestar

from gateway.api.admin.app import admin_app
from gateway.api.admin.dependencies import AdminDependencies
from gateway.oauth.throttle import Throttle

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Served:
    """The application over `deps`, to be called as ASGI has it."""

    def __init__(self, deps: AdminDependencies) -> None:
        self.deps = deps
        self._throttles: dict[str, Throttle] = {}

    @property
    def app(self) -> Litestar:
        return _shared()

    def throttle(self, name: str, limit: int, period_s: float) -> Throttle:
        """What an application of its own would have made of `deps.throttles`, once."""
        if name not in self._throttles:
            self._throttles[name] = self.deps.throttles(name, limit, period_s)
        return self._throttles[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _asked.set(self)
        try:
            await self.app(scope, receive, send)  # type: ignore[arg-type]  # ASGI's own types
        finally:
            _asked.reset(token)


_asked: ContextVar[Served] = ContextVar("_asked")


class _AskedThrottle:
    """A throttle that the application keeps: that of the world that is asked."""

    def __init__(self, name: str, limit: int, period_s: float) -> None:
        self._made = name, limit, period_s

    async def check(self, key: str) -> None:
        await _asked.get().throttle(*self._made).check(key)

    async def charge(self, key: str) -> None:
        await _asked.get().throttle(*self._made).charge(key)


class _Asked(AdminDependencies):
    """Whatever is asked of it, it asks of the dependencies of the world whose request this is."""

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        return _AskedThrottle if name == "throttles" else getattr(_asked.get().deps, name)


@cache
def _shared() -> Litestar:
    return admin_app(_Asked())
