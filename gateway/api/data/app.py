"""The public listener's application: Litestar, with a short way to the data plane's exact paths."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from litestar import Litestar
from litestar.handlers import ASGIRouteHandler
from litestar.types import LifeSpanReceive, LifeSpanScope, LifeSpanSend, Receive, Scope, Send


class PublicApp(Litestar):
    """Calls the raw handlers among `direct` itself, by their exact path; all else goes Litestar's way.

    They are registered like all others: in Litestar's table, so in the tests that go over it, and reached through
    it under any other spelling of their path. What Litestar would do for them is to pass three coroutines and two
    wrapped `send`s on to a handler that words its own errors. Middleware, guards and hooks of the application
    would be passed over too, so there must be none: `ValueError`.
    """

    def __init__(
        self, *, direct: Sequence[ASGIRouteHandler], route_handlers: Sequence[Any], **options: Any
    ) -> None:
        super().__init__(route_handlers=[*direct, *route_handlers], **options)
        if self.middleware or self.guards or self.before_send or any(h.guards or h.middleware for h in direct):
            raise ValueError("the data plane's requests do not pass Litestar's middleware, guards and hooks")
        self._direct: dict[str, Any] = {path: h.fn for h in direct if not h.is_mount for path in h.paths}

    def __call__(
        self,
        scope: Scope | LifeSpanScope,
        receive: Receive | LifeSpanReceive,
        send: Send | LifeSpanSend,
    ) -> Coroutine[Any, Any, None]:
        """Gives the handler's own coroutine: one more around it would be resumed at every step of a stream."""
        if scope["type"] == "lifespan" or (handle := self._direct.get(scope["path"])) is None:
            return super().__call__(scope, receive, send)
        served: Coroutine[Any, Any, None] = handle(scope, receive, send)
        return served
