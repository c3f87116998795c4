"""A worker's keys for the hashes of prompts."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from gateway.audit.prompt import prompt_hmac
from gateway.errors import UnavailableError
from gateway.exchange import Call
from gateway.prompts import PromptHashes
from gateway.secret import Secret
from policies.facts import Action
from tenants.ids import OrgId

ACME, OTHER = OrgId("acme"), OrgId("other")
CALL = Call(
    task=Action.COMPLETE,
    model="code",
    stream=False,
    include_usage=False,
    max_tokens=None,
    size=10,
    fields={"prompt": Raw(b'"x"')},
)


class Control:
    """Gives each organization a key of its own, once `open` is set."""

    def __init__(self) -> None:
        self.asked: list[OrgId] = []
        self.open = asyncio.Event()
        self.away = False

    async def key(self, org: OrgId) -> Secret:
        self.asked.append(org)
        await self.open.wait()
        if self.away:
            raise UnavailableError("nobody answers")
        return Secret(org.encode() * 8)


async def test_a_key_is_asked_for_once_and_each_organization_has_its_own() -> None:
    control = Control()
    hashes = PromptHashes(control.key)
    waiting = [asyncio.create_task(hashes.of(ACME, CALL)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # whoever asked first gives up, and takes nobody's key along
    control.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert set(found[1:]) == {prompt_hmac(Secret(b"acme" * 8), CALL.task, CALL.fields)}
    assert await hashes.of(OTHER, CALL) not in found
    assert await hashes.of(ACME, CALL) == found[1]
    assert control.asked == [ACME, OTHER]


async def test_without_its_key_a_prompt_has_no_hash_and_nobody_is_asked_at_every_request() -> None:
    control = Control()
    control.away = True
    control.open.set()
    hashes = PromptHashes(control.key)
    assert [await hashes.of(ACME, CALL) for _ in range(3)] == ["", "", ""]
    assert control.asked == [ACME]
