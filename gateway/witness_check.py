"""What `orgate doctor` finds out about the witnesses that the settings name."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from gateway.audit.witness_answer import WitnessError
from gateway.audit.witness_post import WitnessPost
from gateway.settings import Settings
from gateway.witness_files import WitnessSettingsError, read_ca, read_policies

OK, WARNING, FAILED = "ok", "warning", "failed"


class Look(NamedTuple):
    """`witness`: its name in the policy, '' for the policies themselves."""

    witness: str
    verdict: str
    seen: str
    fix: str = ""


async def examine_witnesses(settings: Settings) -> list[Look]:
    """Read the policies and ask each witness something that it has to refuse: who does so in the protocol's way is
    one. A witness that is away is a warning: nothing waits for it."""
    try:
        policies, ca = read_policies(settings), read_ca(settings)
    except WitnessSettingsError as error:
        return [Look("", FAILED, error.message, error.fix)]
    named = [one for policy in (*policies.own.values(), policies.others) for one in policy.witnesses]
    if not named:
        return []
    post = WitnessPost(ca)
    try:
        urls = {one.url: one.name for one in named}
        return list(await asyncio.gather(*(_look(post, name, url) for url, name in urls.items())))
    finally:
        await post.aclose()


async def _look(post: WitnessPost, name: str, url: str) -> Look:
    fix = "ask who runs it, and look at the URL in the policy"
    try:
        reply = await post.ask(url, b"old 0\n")
    except WitnessError as error:
        return Look(name, WARNING, f"{url}: {error}", fix)
    if reply.status != 400:
        return Look(name, WARNING, f"{url} answers status {reply.status}: it is no witness", fix)
    return Look(name, OK, f"{url} answers")
