"""`SliceStore` on Redis, Valkey and a Cluster, with a clock that tests move."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.limits.redis import RedisSlices
from gateway.limits.redis_library import GIVEN_CLOCK, library
from gateway.limits.redis_route import Cluster, Route, Single
from gateway.limits.redis_server import Server, Times
from gateway.limits.redis_wire import Address, Login
from tests.kit.redis import HOST, Kind, RedisServer, shared_cluster, shared_server

PATIENT = Times(answer_s=10, connect_s=10)
"""A test machine may be busy; what is late is another test's business."""


def single(server: RedisServer, login: Login | None = None, times: Times = PATIENT) -> Single:
    async def find() -> Address:
        return HOST, server.port

    text = library(GIVEN_CLOCK)
    return Single(server.address, Server(find, login or Login(), times, text))


class FakeTime:
    def __init__(self, now_us: int) -> None:
        self.now_us = now_us

    def advance(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


@asynccontextmanager
async def slices(route: Route, servers: Sequence[RedisServer], time: FakeTime) -> AsyncIterator[RedisSlices]:
    """Below a prefix of its own, which is emptied at the end."""
    prefix = "t-" + secrets.token_hex(4)
    store = RedisSlices(route, prefix=prefix, text=library(GIVEN_CLOCK), clock_us=lambda: time.now_us)
    try:
        yield store
    finally:
        await store.aclose()
        forget(servers, prefix)


def forget(servers: Sequence[RedisServer], prefix: str) -> None:
    for server in servers:
        with server.client() as client:
            for key in client.scan_iter(match=f"{prefix}:*", count=1_000):
                client.delete(key)


@asynccontextmanager
async def on_one(kind: Kind, time: FakeTime) -> AsyncIterator[tuple[RedisSlices, Sequence[RedisServer]]]:
    server = shared_server(kind)
    async with slices(single(server), [server], time) as store:
        yield store, [server]


@asynccontextmanager
async def on_cluster(time: FakeTime) -> AsyncIterator[tuple[RedisSlices, Sequence[RedisServer]]]:
    servers = shared_cluster()
    nodes = [(HOST, server.port) for server in servers]
    async with slices(Cluster(nodes[:1], Login(), PATIENT, library(GIVEN_CLOCK)), servers, time) as store:
        yield store, servers
