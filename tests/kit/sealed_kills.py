"""Kill a writer of the sealed file with SIGKILL, again and again, and look at the file after each.

`python -m tests.kit.sealed_kills FOLDER COUNT` prints what it found, as JSON. A process of its own: it forks, and
a process with threads must not. Nothing here imports pytest.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from gateway.secret import Secret
from gateway.secrets.sealed import SealedFile
from tenants.ids import OrgId

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
KEY = Secret(b"m" * 32)
STEPS = ("open", "fsync", "replace")
"""The system calls of a write; `step_kills` dies before and after each time that one of them is made."""


def value(version: int) -> Secret:
    """What is written as `version`: of a length of its own, so that a mixture of two cannot pass."""
    return Secret(f"sk-{version}-".ljust(2_000 + version % 2_000, "x"))


def check(path: Path, acknowledged: int) -> int:
    """The version that a new reader finds. Raises `AssertionError` when anything is lost, mixed or torn."""
    reader = SealedFile(path, KEY)
    found = asyncio.run(reader.get(ACME, "openai"))
    assert found.version in {acknowledged, acknowledged + 1}, (found.version, acknowledged)
    assert found.secret.reveal() == value(found.version).reveal(), "half of one version and half of another"
    assert asyncio.run(reader.get(GLOBEX, "openai")).secret.reveal() == b"sk-of-globex"
    return found.version


def random_kills(path: Path, count: int, seed: int) -> Counter[str]:
    """`count` writers, each killed within one of its writes, at a random instant of the time it takes."""
    instants = random.Random(seed)
    found: Counter[str] = Counter()
    version = check(path, 1)
    takes = 0.005
    for _ in range(count):
        mine, theirs = os.pipe()
        writer = os.fork()
        if writer == 0:
            os.close(mine)
            _write_for_ever(path, version, theirs)
        os.close(theirs)
        begun = 0.0
        seen = instants.randint(2, 4)
        for _ in range(seen):  # each byte: the write before is done, the next one begins
            if begun:
                takes = 0.9 * takes + 0.1 * (time.monotonic() - begun)
            begun = time.monotonic()
            assert os.read(mine, 1), "the writer died by itself"
        time.sleep(instants.uniform(0, 1.2 * takes))
        os.kill(writer, signal.SIGKILL)
        version += seen - 1 + _reap(writer, mine)
        after = check(path, version)
        found["it stands" if after > version else "it does not"] += 1
        found["a stray file"] += Path(f"{path}.tmp").exists()
        version = after
    return found


def _reap(writer: int, mine: int) -> int:
    """The bytes that it had written and nobody had read yet."""
    _, status = os.waitpid(writer, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    rest = b""
    while more := os.read(mine, 65_536):
        rest += more
    os.close(mine)
    return len(rest)


def _write_for_ever(path: Path, version: int, told: int) -> None:
    store = SealedFile(path, KEY)

    async def write() -> None:
        now = version
        while True:
            os.write(told, b".")
            now = await store.put(ACME, "openai", value(now + 1))

    try:
        asyncio.run(write())
    finally:
        os._exit(1)


def step_kills(path: Path) -> Counter[str]:
    """One writer for each place between two system calls of a write, killed just there."""
    found: Counter[str] = Counter()
    version = check(path, 1)
    place = 0
    while True:
        writer = os.fork()
        if writer == 0:
            _write_until(path, version, place)
        _, status = os.waitpid(writer, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, status
            check(path, version + 1)
            found["places"] = place
            return found
        after = check(path, version)
        found["it stands" if after > version else "it does not"] += 1
        version, place = after, place + 1


def _write_until(path: Path, version: int, place: int) -> None:
    """Write once; die at the `place`-th of the places before and after a call of `STEPS`."""
    left = iter(range(place, -1, -1))

    def dying(call: object) -> object:
        def called(*args: object, **kwargs: object) -> object:
            if next(left, -1) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = call(*args, **kwargs)  # type: ignore[operator]
            if next(left, -1) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return called

    try:
        store = SealedFile(path, KEY)
        for step in STEPS:
            setattr(os, step, dying(getattr(os, step)))
        store._write("orgs/acme/upstreams/openai", value(version + 1))  # in this thread: nothing else calls os
        os._exit(0)
    finally:
        os._exit(1)


def main(folder: Path, count: int) -> None:
    path = folder / "secrets.sealed"
    store = SealedFile(path, KEY)
    asyncio.run(store.put(GLOBEX, "openai", Secret("sk-of-globex")))
    asyncio.run(store.put(ACME, "openai", value(1)))
    steps = step_kills(path)
    version = asyncio.run(store.get(ACME, "openai")).version
    path.unlink()
    asyncio.run(store.put(GLOBEX, "openai", Secret("sk-of-globex")))
    asyncio.run(store.put(ACME, "openai", value(1)))
    began = time.monotonic()
    at_random = random_kills(path, count, seed=7)
    said = {"steps": steps, "last": version, "random": at_random, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
