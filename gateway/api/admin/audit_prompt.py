"""Whether a prompt was sent: its keyed hash, to look for among the entries."""

from __future__ import annotations

from typing import Any

from litestar import post
from litestar.params import RequestBody
from msgspec import Raw, Struct, json

from gateway.api.admin.caller import CallerDependency
from gateway.api.admin.problems import invalid
from gateway.api.admin.routing import operation
from gateway.audit.prompt import prompt_hmac
from policies.facts import Action
from tenants.roles import Operation


class PromptBody(Struct, frozen=True):
    """A request as it was sent to a model, or the part of it that is its prompt; whatever else is in it is not
    looked at."""

    prompt: Any = None
    suffix: Any = None
    messages: Any = None
    input: Any = None


class PromptHash(Struct, frozen=True):
    """What entries of requests with this prompt have as `prompt_hmac`, if the organization wanted it then."""

    prompt_hmac: str


_TASKS = {"prompt": Action.COMPLETE, "messages": Action.CHAT, "input": Action.EMBED}


@post(
    "/prompt-hash",
    status_code=200,
    **operation(
        Operation.AUDIT_PROMPT_READ, "hashAuditPrompt", body=True, summary="Hash a prompt, to look for it"
    ),
)
async def match(caller: CallerDependency, data: RequestBody[PromptBody]) -> PromptHash:
    """The keyed hash of a prompt. The prompt is kept nowhere; that somebody asked is an entry, with the hash."""
    given = {name: value for name in ("prompt", "suffix", "messages", "input") if (value := getattr(data, name))}
    tasks = [task for name, task in _TASKS.items() if name in given]
    if len(tasks) != 1:
        raise invalid(("prompt", "one of prompt, messages and input is given, as in the request"))
    fields = {name: Raw(json.encode(value)) for name, value in given.items()}
    found = prompt_hmac(await caller.deps.people.prompt_key(caller.org), tasks[0], fields)
    if not found:
        raise invalid(("prompt", "has no text, or is larger than 256 KiB: such a prompt has no hash"))
    await caller.store.note("audit_prompt.read", caller.org, caller.actor, {"prompt_hmac": found})
    return PromptHash(found)


HANDLERS = [match]
