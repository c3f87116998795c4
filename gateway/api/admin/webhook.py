"""An organization's webhook: who is told when a budget is nearly used up. Its secret is shown once."""

from __future__ import annotations

from typing import Any

from litestar import Router, delete, get, post, put
from litestar.params import RequestBody
from msgspec import Struct

from gateway.api.admin.caller import CallerDependency
from gateway.api.admin.problems import invalid
from gateway.api.admin.routing import operation
from gateway.webhooks import WebhookResult
from tenants.budgets import Webhook
from tenants.roles import Operation


class WebhookBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`ca_pem`: the receiver's own CA, when its certificate is from none that everybody knows."""

    url: str
    ca_pem: str = ""


class WebhookFacts(Struct, frozen=True):
    """`url` is '' where none is set. Times in Unix seconds, 0: never. `failure`: why the last attempt failed."""

    url: str = ""
    ca_pem: str = ""
    set_at: int = 0
    delivered_at: int = 0
    failure: str = ""
    version: int = 0


class WebhookMade(Struct, frozen=True):
    """`secret` signs what is sent (standardwebhooks.com). It is never shown again: setting anew makes another."""

    url: str
    secret: str
    version: int


@get("/", **operation(Operation.WEBHOOK_READ, "getWebhook", summary="See the webhook"))
async def read(caller: CallerDependency) -> WebhookFacts:
    """Where it leads, and how the last delivery went. Never the secret."""
    hook = await caller.deps.webhooks.get(caller.org)
    if hook is None:
        return WebhookFacts()
    return WebhookFacts(hook.url, hook.ca_pem, hook.set_at, hook.delivered_at, hook.failure, hook.version)


@put("/", **operation(Operation.WEBHOOK_WRITE, "putWebhook", body=True, summary="Set the webhook"))
async def replace(caller: CallerDependency, data: RequestBody[WebhookBody]) -> WebhookMade:
    """Notices of budgets go there from now on, signed with a new secret."""
    if wrong := caller.deps.check_url(data.url):
        raise invalid(("url", wrong))
    made, secret = await caller.deps.webhooks.put(Webhook(caller.org, data.url, data.ca_pem), caller.actor)
    return WebhookMade(made.url, secret, made.version)


@delete("/", **operation(Operation.WEBHOOK_DELETE, "deleteWebhook", summary="Take the webhook away"))
async def remove(caller: CallerDependency) -> None:
    """What was still to be delivered is not delivered any more."""
    await caller.deps.webhooks.delete(caller.org, caller.actor)


@post("/test", status_code=200, **operation(Operation.WEBHOOK_TEST, "testWebhook", summary="Try the webhook"))
async def test(caller: CallerDependency) -> WebhookResult:
    """Sends a message of type `webhook.test` once, from the control process. Says what it met."""
    result = await caller.deps.webhooks.test(caller.org)
    await caller.store.note("webhook.test", caller.org, caller.actor, {"ok": result.ok})
    return result


def router() -> Router:
    handlers: list[Any] = [read, replace, remove, test]
    return Router(path="/orgs/{org:str}/webhook", tags=["Webhook"], route_handlers=handlers)
