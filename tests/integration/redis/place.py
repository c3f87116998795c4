"""What tests of limits in Redis share: a store opened by settings, and one bucket to ask about."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import UnavailableError
from gateway.limits.protocol import Part, SliceAnswer, SliceAsk, Wish
from gateway.limits.redis import RedisSlices
from gateway.limits.redis_open import open_slices
from gateway.limits_settings import LimitsSettings
from tenants.ids import OrgId
from tenants.models import LimitUnit

ACME, PROBE = OrgId("acme"), OrgId("probe")
DAY = Part("requests", "", LimitUnit.REQUESTS, 1_000, 1_000, 86_400)
QUICK = {"timeout_ms": 250, "connect_timeout_ms": 500}
"""Quick enough for a test of what is late, and patient with a busy machine."""


def settings(*addresses: str, **more: Any) -> LimitsSettings:
    return LimitsSettings(
        store="redis", addresses=addresses, **{"prefix": "t-" + secrets.token_hex(4), "timeout_ms": 5_000, **more}
    )


@asynccontextmanager
async def store(given: LimitsSettings, home: Path = Path()) -> AsyncIterator[RedisSlices]:
    slices = open_slices(given, home)
    try:
        yield slices
    finally:
        await slices.aclose()


class Caller:
    """One worker's session, message by message. What could not be asked is sent again word for word."""

    def __init__(self, slices: RedisSlices, org: OrgId = ACME, name: str = "w1") -> None:
        self.slices = slices
        self.org = org
        self.name = name
        self.session = self.epoch = ""
        self.seq = 0
        self.pending: SliceAsk | None = None

    async def take(self, cost: int = 1, part: Part = DAY) -> SliceAnswer:
        if self.pending is None:
            wishes = ((Wish(0, cost, cost),),)
            self.pending = SliceAsk(
                self.org, self.name, self.session, self.epoch, self.seq + 1, 1, (part,), wishes
            )
        answer = await self.slices.ask(self.pending)
        self.epoch = answer.epoch
        if answer.known:
            self.session, self.seq = answer.session, self.pending.seq
        else:
            self.session, self.seq = "", 0
        self.pending = None
        return answer

    async def left(self) -> int:
        return (await self.take(0)).slices[0].left


async def unavailable(slices: RedisSlices, org: OrgId = PROBE) -> str:
    """That it cannot be asked, and why."""
    with pytest.raises(UnavailableError):
        await Caller(slices, org).take()
    assert slices.failing
    return slices.failing


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "orgate.limits"]
