"""A log's witnesses: quorums, rounds, and every way in which a witness can fail to be one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.cosignature import cosign, key_of
from gateway.audit.note import VerifierKey, open_note, parse_checkpoint, split_note
from gateway.audit.policy import NOBODY, Policies, Policy, judge, parse_policy
from gateway.audit.sequencer import Sequencer
from gateway.audit.witness_answer import ANSWER_MAX, Reply, WitnessError
from gateway.audit.witness_wire import SIZE_TYPE, parse_submission
from gateway.audit.witnessed import WitnessedNotes
from gateway.audit.witnesses import PAUSES_S, Witnesses
from gateway.witness.folder import WitnessFolder, make
from gateway.witness.protocol import Witness
from tests.fakes.audit import ACME, GLOBEX, SIGNER, up
from tests.fakes.growinglog import GrowingLog
from tests.kit.wait import eventually

AT = 1_763_690_000
NAMES = ("w1", "w2")


class Field:
    """Real witnesses behind addresses of their own, without a network. `instead` answers for one of them."""

    def __init__(self, folder: Path, logs: Sequence[VerifierKey] = ()) -> None:
        self.folders: dict[str, WitnessFolder] = {}
        self.instead: dict[str, Callable[[bytes], Reply]] = {}
        self.asked: list[tuple[str, int]] = []
        self.closed = False
        self.asked_of: Policies | None = None
        for name in NAMES:
            make(folder / name, f"{name}.example")
            self.folders[name] = WitnessFolder(folder / name)
            for key in logs or (SIGNER.key(ACME), SIGNER.key(GLOBEX)):
                self.folders[name].add(key)
        self._at_work = {name: Witness(kept, lambda: AT) for name, kept in self.folders.items()}

    def policy(self, quorum: str) -> Policy:
        """`quorum`: all, any or none."""
        lines = [f"witness {name} {self.folders[name].key} https://{name}.example/\n" for name in NAMES]
        group = "" if quorum == "none" else f"group both {quorum} {' '.join(NAMES)}\n"
        return parse_policy("".join(lines) + group + f"quorum {'none' if quorum == 'none' else 'both'}\n")

    def policies(self, quorum: str) -> Policies:
        return self.asked_of or Policies(others=self.policy(quorum))

    async def aclose(self) -> None:
        self.closed = True

    async def ask(self, url: str, body: bytes) -> Reply:
        name = url.removeprefix("https://").partition(".")[0]
        asked = parse_submission(body)
        self.asked.append((name, parse_checkpoint(split_note(asked.note)[0]).size))
        if name in self.instead:
            return self.instead[name](body)
        answer = await self._at_work[name].add_checkpoint(body)
        return Reply(answer.status, answer.body.encode(), answer.kind)


def down(_: bytes) -> Reply:
    raise WitnessError("it cannot be reached")


class Scene:
    """A sequencer, its witnesses, and a monotonic clock that tests move."""

    def __init__(self, folder: Path, field: Field, quorum: str) -> None:
        self.folder = folder
        self.field = field
        self.now = 1_000.0
        self.counted: list[tuple[str, str]] = []
        self.sequencer = Sequencer(folder / "audit", SIGNER, clock=lambda: self.now, pause=self._no_pause)
        self.witnesses = Witnesses(
            field.policies(quorum),
            self.sequencer,
            field,
            WitnessedNotes(folder / "audit" / "witnessed"),
            clock=lambda: AT,
            monotonic=lambda: self.now,
            random=lambda: 0.0,
            count=lambda *labels: self.counted.append(labels),
        )
        self.sequencer.published = self.witnesses.published

    async def _no_pause(self, _: float) -> None:
        return

    async def grow(self, *numbers: int, boot: str = "boot") -> int:
        """Entries, and a checkpoint over them; returns its size."""
        await self.sequencer.append_receipts(up(boot, *numbers))
        await self.sequencer.save_checkpoints(closing=True)
        return (await self.sequencer.opened(ACME)).log.size

    def size(self) -> int:
        return self.witnesses.standing(ACME).witnessed_size

    async def witnessed(self, size: int) -> None:
        await eventually(lambda: self.size() == size, f"a quorum for {size} entries")

    async def kept(self) -> None:
        """Until what is served after a restart is what is served now."""
        file = self.folder / "audit" / "witnessed" / ACME
        note = self.witnesses.witnessed(ACME)
        await eventually(lambda: file.exists() and file.read_text() == note, "the note is kept")


@asynccontextmanager
async def running(folder: Path, quorum: str = "all", field: Field | None = None) -> AsyncIterator[Scene]:
    scene = Scene(folder, field or Field(folder), quorum)
    await scene.sequencer.open()
    task = asyncio.create_task(scene.witnesses.run())
    await asyncio.sleep(0)
    try:
        yield scene
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert scene.field.closed
        await scene.sequencer.close()


async def test_every_checkpoint_comes_to_have_its_quorum(tmp_path: Path) -> None:
    async with running(tmp_path) as scene:
        for n in range(1, 8, 3):
            size = await scene.grow(n, n + 1, n + 2)
            await scene.witnessed(size)
        note = scene.witnesses.witnessed(ACME)
        verdict = judge(scene.witnesses.policy(ACME), note)
        assert verdict.met
        assert [one.at for one in verdict.cosigned] == [AT, AT]
        assert open_note(note, SIGNER.key(ACME))
        await eventually(lambda: (tmp_path / "audit/orgs/acme/checkpoint").read_text() == note, "it is stored")
        assert scene.witnesses.late() == {ACME: 0.0}
        assert {size for _, size in scene.field.asked} == {3, 6, 9}
        assert ("w1", "cosigned") in scene.counted


async def test_one_that_is_down_keeps_all_of_two_from_their_quorum_and_none_of_any(tmp_path: Path) -> None:
    field = Field(tmp_path)
    field.instead["w2"] = down
    async with running(tmp_path / "any", "any", field) as scene:
        await scene.witnessed(await scene.grow(1, 2))
        assert scene.witnesses.standing(ACME).late_s == 0
    async with running(tmp_path / "all", "all", field) as scene:
        await scene.grow(1, 2)
        await eventually(lambda: bool(scene.witnesses.standing(ACME).seen["w2"].fault), "the fault is known")
        assert (scene.size(), scene.witnesses.witnessed(ACME)) == (-1, "")
        scene.now += 1_000
        assert scene.witnesses.late() == {ACME: 1_000.0}
        # It comes back: nothing new has to happen in the log for it to be asked again.
        del field.instead["w2"]
        scene.sequencer.published = None
        await scene.grow(3)
        scene.witnesses.published(ACME, (await scene.sequencer.opened(ACME)).log.checkpoint())
        await scene.witnessed(3)


async def test_who_failed_is_asked_again_after_growing_pauses(tmp_path: Path) -> None:
    field = Field(tmp_path)
    field.instead["w2"] = down
    async with running(tmp_path, "any", field) as scene:
        await scene.witnessed(await scene.grow(1))
        for n, pause in enumerate((*PAUSES_S, PAUSES_S[-1]), 1):
            tries = sum(name == "w2" for name, _ in field.asked)
            assert tries == n
            scene.now += pause - 0.5
            await scene.witnessed(await scene.grow(2 * n))
            assert sum(name == "w2" for name, _ in field.asked) == tries
            scene.now += 0.6
            await scene.witnessed(await scene.grow(2 * n + 1))
            await eventually(lambda n=n: scene.counted.count(("w2", "failed")) == n + 1, "asked again")  # type: ignore[misc]


def forged(line_of: Callable[[str], str]) -> Callable[[bytes], Reply]:
    return lambda body: Reply(200, line_of(split_note(parse_submission(body).note)[0]).encode())


OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
EMPTY = GrowingLog(0)
LIES: Mapping[str, tuple[Callable[[bytes], Reply], str]] = {
    "down": (down, "cannot be reached"),
    "another key": (forged(lambda text: cosign(text, "w2.example", OTHER, AT)), "did not cosign"),
    "no line": (lambda _: Reply(200, b""), "no signature lines"),
    "bytes": (lambda _: Reply(200, b"\xff\xfe"), "no signature"),
    "a page": (lambda _: Reply(200, b"<html>" * 100, "text/html"), "malformed|signature lines"),
    "moved": (lambda _: Reply(302, b""), "status 302"),
    "unknown": (lambda _: Reply(404, b"secret words"), "does not serve this log"),
    "forbidden": (lambda _: Reply(403, b""), "another key for this log"),
    "unprocessable": (lambda _: Reply(422, b""), "another history"),
    "broken": (lambda _: Reply(500, b"x" * ANSWER_MAX), "status 500"),
    "no size": (lambda _: Reply(409, b"many\n", SIZE_TYPE), "no size"),
    "a conflict of another kind": (lambda _: Reply(409, b"1\n", "text/plain"), "status 409"),
    "the same size": (lambda _: Reply(409, b"0\n", SIZE_TYPE), "refuses the proof"),
    "more than there is": (lambda _: Reply(409, b"99\n", f"{SIZE_TYPE}; x=y"), "entries are gone"),
}


@pytest.mark.parametrize(("lie", "said"), LIES.values(), ids=LIES)
async def test_whatever_a_witness_answers_the_log_goes_on(
    tmp_path: Path, lie: Callable[[bytes], Reply], said: str
) -> None:
    field = Field(tmp_path)
    field.instead["w2"] = lie
    async with running(tmp_path, "any", field) as scene:
        await scene.witnessed(await scene.grow(1, 2))
        seen = scene.witnesses.standing(ACME).seen
        await eventually(lambda: bool(seen["w2"].fault), "the fault is known")
        fault = scene.witnesses.standing(ACME).seen["w2"]
        assert any(part in fault.fault for part in said.split("|")), fault
        assert "secret" not in fault.fault
        assert (fault.size, fault.at, fault.fault_at) == (0, 0, AT)
        await scene.witnessed(await scene.grow(3))
        del field.instead["w2"]
        scene.now += 10_000
        await scene.grow(4)
        await eventually(lambda: scene.witnesses.standing(ACME).seen["w2"].size == 4, "it is one again")
        assert scene.witnesses.standing(ACME).seen["w2"].fault == ""


async def test_a_signature_over_something_else_is_none(tmp_path: Path) -> None:
    field = Field(tmp_path)
    private = field.folders["w2"].private
    field.instead["w2"] = forged(lambda _: cosign(split_note(EMPTY.note(0))[0], "w2.example", private, AT))
    async with running(tmp_path, "any", field) as scene:
        await scene.witnessed(await scene.grow(1, 2))
        await eventually(lambda: bool(scene.witnesses.standing(ACME).seen["w2"].fault), "the fault is known")
        assert "is wrong" in scene.witnesses.standing(ACME).seen["w2"].fault
        assert "w2.example" not in scene.witnesses.witnessed(ACME)


async def test_a_size_that_changes_with_each_answer_is_not_followed_for_ever(tmp_path: Path) -> None:
    field = Field(tmp_path)
    sizes = iter([1, 2, 1, 2, 1])
    field.instead["w2"] = lambda _: Reply(409, f"{next(sizes)}\n".encode(), SIZE_TYPE)
    async with running(tmp_path, "any", field) as scene:
        await scene.witnessed(await scene.grow(1, 2, 3))
        await eventually(lambda: bool(scene.witnesses.standing(ACME).seen["w2"].fault), "the fault is known")
        assert "another size each time" in scene.witnesses.standing(ACME).seen["w2"].fault


async def test_a_witness_that_refuses_one_log_serves_the_others(tmp_path: Path) -> None:
    field = Field(tmp_path)
    field.folders["w2"].remove(SIGNER.key(ACME).name)
    async with running(tmp_path, "all", field) as scene:
        await scene.grow(1)
        await eventually(lambda: bool(scene.witnesses.standing(ACME).seen["w2"].fault), "the fault is known")
        await scene.sequencer.append_receipts(up("other", 1, org=GLOBEX))
        await scene.sequencer.save_checkpoints(closing=True)
        await eventually(lambda: scene.witnesses.standing(GLOBEX).witnessed_size == 1, "the other's quorum")
        assert scene.size() == -1
        assert SIGNER.origin(ACME) not in scene.witnesses.witnessed(GLOBEX)


async def test_each_organization_has_the_witnesses_of_its_own_policy(tmp_path: Path) -> None:
    field = Field(tmp_path)
    both, one = (
        field.policy("all"),
        parse_policy(f"witness w1 {field.folders['w1'].key} https://w1.x\nquorum w1\n"),
    )
    field.asked_of = Policies({ACME: one})
    async with running(tmp_path, "all", field) as scene:
        await scene.witnessed(await scene.grow(1))
        await scene.sequencer.append_receipts(up("other", 1, org=GLOBEX))
        await scene.sequencer.save_checkpoints(closing=True)
        await scene.witnessed(await scene.grow(2))
        assert {name for name, _ in field.asked} == {"w1"}
        assert (scene.witnesses.policy(ACME), scene.witnesses.policy(GLOBEX)) == (one, NOBODY)
        assert scene.witnesses.late() == {ACME: 0.0, GLOBEX: 0.0}
        assert scene.witnesses.witnessed(GLOBEX) == ""
        assert not judge(both, scene.witnesses.witnessed(ACME)).met


async def test_a_slow_witness_comes_to_cosign_the_same_tree(tmp_path: Path) -> None:
    field = Field(tmp_path)
    asked, go = asyncio.Event(), asyncio.Event()
    quick = field.ask

    async def slow(url: str, body: bytes) -> Reply:
        if "w2" in url:
            asked.set()
            await go.wait()
        return await quick(url, body)

    field.ask = slow  # type: ignore[method-assign]
    async with running(tmp_path, "all", field) as scene:
        await scene.grow(1)
        await asked.wait()
        await scene.grow(2)
        await scene.grow(3)
        assert scene.size() == -1
        go.set()
        await scene.witnessed(3)
        assert {size for _, size in field.asked} == {1, 3}


async def test_after_a_restart_it_goes_on_where_the_witnesses_are(tmp_path: Path) -> None:
    field = Field(tmp_path)
    async with running(tmp_path, "all", field) as scene:
        await scene.witnessed(await scene.grow(1, 2, 3))
        await scene.kept()
        note = scene.witnesses.witnessed(ACME)
    field.asked.clear()
    field.instead = dict.fromkeys(NAMES, down)
    async with running(tmp_path, "all", field) as scene:
        await eventually(lambda: len(field.asked) >= 2, "they were asked")
        assert scene.witnesses.witnessed(ACME) == note
        assert scene.witnesses.late() == {ACME: 0.0}
        size = await scene.grow(4, 5)
        assert scene.witnesses.witnessed(ACME) == note
        field.instead.clear()
        scene.now += 1_000
        await scene.grow(6)
        await scene.witnessed(size + 1)


async def test_a_policy_that_asks_for_nothing_serves_what_is_newest(tmp_path: Path) -> None:
    field = Field(tmp_path)
    field.instead["w2"] = down
    async with running(tmp_path, "none", field) as scene:
        await scene.witnessed(await scene.grow(1))
        stored = (await scene.sequencer.opened(ACME)).log
        await eventually(lambda: "w1.example" in stored.checkpoint(), "the cosignature is kept")
        assert scene.witnesses.witnessed(ACME) == ""
        field.instead["w1"] = down
        await scene.grow(2)
        scene.now += 10_000
        assert scene.witnesses.late() == {ACME: 0.0}


@pytest.mark.parametrize("change", [lambda n: n.replace("\n3\n", "\n4\n"), lambda _: "", lambda _: "\udcff"])
async def test_a_kept_note_that_was_changed_is_not_served(tmp_path: Path, change: Callable[[str], str]) -> None:
    field = Field(tmp_path)
    async with running(tmp_path, "all", field) as scene:
        await scene.witnessed(await scene.grow(1, 2, 3))
        await scene.kept()
        policy, key = scene.witnesses.policy(ACME), SIGNER.key(ACME)
    kept = WitnessedNotes(tmp_path / "audit" / "witnessed")
    path = tmp_path / "audit" / "witnessed" / "acme"
    assert kept.load(ACME, key, policy)
    assert kept.load(GLOBEX, SIGNER.key(GLOBEX), policy) == ""
    stricter = parse_policy(f"witness w3 {key_of('w3.example', OTHER)}\nquorum w3\n")
    assert kept.load(ACME, key, stricter) == ""
    path.write_bytes(change(path.read_text()).encode("utf-8", "surrogateescape"))
    assert kept.load(ACME, key, policy) == ""


async def test_a_log_that_was_put_back_from_an_older_copy_is_found_out(tmp_path: Path) -> None:
    field = Field(tmp_path)
    async with running(tmp_path / "now", "all", field) as scene:
        await scene.witnessed(await scene.grow(1, 2, 3))
        await scene.kept()
    async with running(tmp_path / "old", "all", field) as scene:
        (tmp_path / "old" / "audit" / "witnessed").mkdir(parents=True)
        note = (tmp_path / "now" / "audit" / "witnessed" / "acme").read_bytes()
        (tmp_path / "old" / "audit" / "witnessed" / "acme").write_bytes(note)
        await scene.grow(1, 2)
        assert scene.witnesses.witnessed(ACME) == ""
        await eventually(
            lambda: "entries are gone" in scene.witnesses.standing(ACME).seen["w1"].fault, "w1 has seen more"
        )
        # It grows past that size with other entries: no proof leads there.
        fault = ""
        for n in range(8, 18, 2):  # more than once when it was just being asked about the checkpoint before
            failed = scene.counted.count(("w1", "failed"))
            scene.now += 10_000
            await scene.grow(n, n + 1, boot="another")
            await eventually(lambda failed=failed: scene.counted.count(("w1", "failed")) > failed, "w1 is asked")  # type: ignore[misc]
            fault = scene.witnesses.standing(ACME).seen["w1"].fault
            if "entries are gone" not in fault:
                break
        assert "another history" in fault
        assert scene.size() == -1
