"""The text that Redis runs for the limits, as a library of Redis Functions and as a script for EVALSHA.

Its name carries a hash of its text, so that during a rollout each version calls its own, on the same buckets.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from msgspec import Struct

CLOCK: Final = """
local KEPT_MS = 0
local function clock(args)
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
"""
"""Redis' own clock, in microseconds."""

GIVEN_CLOCK: Final = """
local KEPT_MS = 400 * 86400000
local function clock(args)
  return tonumber(args[4])
end
"""
"""For tests: the time is the fourth argument of each call, and nothing is forgotten however it moves."""


class Library(Struct, frozen=True):
    """`name` is the library's and of its one function; `sha1` the script's, as EVALSHA wants it."""

    name: str
    function: str
    script: str
    sha1: str


def library(clock: str = CLOCK) -> Library:
    here = files("gateway.limits")
    texts = [
        (here / name).read_text(encoding="utf-8")
        for name in ("redis_numbers.lua", "redis_buckets.lua", "redis_library.lua")
    ]
    body = "\n".join([clock, *texts])
    name = "orgate_limits_" + hashlib.sha256(body.encode()).hexdigest()[:12]
    function = f"#!lua name={name}\n{body}\nredis.register_function('{name}', call)\n"
    script = f"{body}\nreturn call(KEYS, ARGV)\n"
    return Library(name, function, script, hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest())
