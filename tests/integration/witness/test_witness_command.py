"""`orgate audit witness` as an auditor runs it: over HTTP, killed at any moment, told of logs while it runs."""

from __future__ import annotations

import random
import signal
import socket
import threading
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.audit.cosignature import cosigned, verified
from gateway.audit.note import open_note, split_note
from gateway.audit.policy import judge, parse_policy
from gateway.audit.witness_answer import Cosignature, Knows, WitnessError, understood
from gateway.audit.witness_post import WitnessPost
from gateway.audit.witness_wire import SIZE_TYPE, submission
from tests.fakes.growinglog import GrowingLog
from tests.kit.certs import make_pki
from tests.kit.orgate import Orgate
from tests.kit.ports import free_port
from tests.kit.witness import RunningWitness, witness

KILLS = 3
ACME_MAX = 3_000
ACME = GrowingLog(ACME_MAX)
CUT = GrowingLog(60, forked=10)
GLOBEX = GrowingLog(origin="gateway.example/audit/globex")


def test_a_log_is_followed_and_a_cut_one_is_not(tmp_path: Path) -> None:
    with witness(tmp_path / "w", logs=[ACME.key]) as w1:
        assert w1.post(ACME.submission(0, 20))[0] == 200
        status, line, _ = w1.post(ACME.submission(20, 40))
        assert status == 200
        honest = ACME.note(40) + line

        # The operator takes back what came after leaf 10, writes another history and signs it with the right key.
        assert w1.post(CUT.submission(0, 15)) == (409, "40\n", SIZE_TYPE)
        assert w1.post(submission(40, [], CUT.note(15)))[0] == 400
        assert w1.post(submission(40, [], CUT.note(40)))[0] == 422
        assert w1.post(submission(40, CUT.proof(40, 60), CUT.note(60)))[0] == 422
        assert w1.published(ACME.origin)[1] == honest

        # What is shown to an auditor then lacks a cosignature, or carries one of another tree.
        policy = parse_policy(f"log {ACME.key}\nwitness w1 {w1.key}\nquorum w1\n")
        assert judge(policy, honest).met
        assert not judge(policy, CUT.note(60)).met
        assert "is wrong" in judge(policy, CUT.note(40) + line).fault
    assert "refused size 60" in w1.log.read_text()


def test_a_witness_serves_the_logs_it_was_given_and_no_other(tmp_path: Path) -> None:
    person = Orgate(tmp_path / "config")
    place = ("--folder", str(tmp_path / "w"))
    with witness(tmp_path / "w", logs=[ACME.key]) as w1:
        assert w1.post(GLOBEX.submission(0, 20))[0] == 404
        (tmp_path / "globex.key").write_text(f"{GLOBEX.key}\n")
        person("audit", "witness", "add", str(tmp_path / "globex.key"), *place)
        assert w1.post(GLOBEX.submission(0, 20))[0] == 200
        assert w1.published(ACME.origin)[0] == 404
        listed = person.json("audit", "witness", "list", *place)
        assert [(one["origin"], one["size"]) for one in listed] == [(ACME.origin, 0), (GLOBEX.origin, 20)]
        person("audit", "witness", "remove", GLOBEX.origin, *place)
        assert w1.post(GLOBEX.submission(20, 30))[0] == 404
        assert "not served" in person("audit", "witness", "remove", GLOBEX.origin, *place, expect=1)


async def test_over_tls_it_is_asked_as_a_gateway_asks(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "tls")
    ours, strange = WitnessPost(pki.ca_pem), WitnessPost()
    with witness(tmp_path / "w", logs=[ACME.key], tls=pki) as w1:
        for old, new in ((0, 20), (20, 33), (33, 33)):
            note = ACME.note(new)
            reply = await ours.ask(w1.url, submission(old, ACME.proof(old, new), note))
            answer = understood(reply, split_note(note)[0], w1.key)
            assert isinstance(answer, Cosignature)
            assert verified(split_note(note)[0], answer.line, w1.key) == answer.at
        assert understood(await ours.ask(w1.url, ACME.submission(0, 40)), "", w1.key) == Knows(33)
        with pytest.raises(WitnessError, match="not trusted"):
            await strange.ask(w1.url, ACME.submission(33, 40))
    await ours.aclose()
    await strange.aclose()


def test_it_speaks_the_protocol_in_which_nobody_can_wait_for_ever(tmp_path: Path) -> None:
    """A connection without a request counts as one that is served: in HTTP/1.1 it is closed after 10 s."""
    with witness(tmp_path / "w", logs=[ACME.key]) as w1:
        where = urlsplit(w1.url)
        with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=30) as opened:
            opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            assert opened.recv(9)[:5] in (b"", b"HTTP/")
        assert w1.post(ACME.submission(0, 20))[0] == 200


def follow(w1: RunningWitness, seen: list[str]) -> None:
    """Grow the log leaf by leaf from what the witness knows, until it is gone."""
    size = int(w1.post(submission(ACME_MAX, [], ACME.note(ACME_MAX)))[1])
    while size < ACME_MAX:
        note = ACME.note(size + 1)
        try:
            status, line, _ = w1.post(submission(size, ACME.proof(size, size + 1), note))
        except (OSError, HTTPException):
            return
        assert status == 200
        seen.append(note + line)
        size += 1


def test_after_kill_9_it_knows_every_tree_that_it_has_cosigned(tmp_path: Path) -> None:
    rng = random.Random(7)
    seen: list[str] = []
    for kill in range(KILLS):
        with witness(tmp_path / "w", logs=[ACME.key]) as w1:
            if seen:
                status, text, _ = w1.published(ACME.origin)
                assert status == 200
                size = int(split_note(seen[-1])[0].split("\n")[1])
                assert int(open_note(text, ACME.key).split("\n")[1]) in (size, size + 1)
                assert w1.post(submission(size - 1, ACME.proof(size - 1, size), ACME.note(size)))[0] == 409
            before = len(seen)
            follower = threading.Thread(target=follow, args=(w1, seen))
            follower.start()
            enough = rng.randint(1, 60)
            while len(seen) - before < enough:
                follower.join(0.001)
            w1.process.send_signal(signal.SIGKILL)
            follower.join()
            assert len(seen) > before, kill
        assert all(w1.key in cosigned(note, [w1.key]) for note in seen)


def test_two_witnesses_share_neither_folder_nor_port(tmp_path: Path) -> None:
    person = Orgate(tmp_path / "config")
    with witness(tmp_path / "w", "w") as w1:
        port = w1.url.rpartition(":")[2]
        serve = ("audit", "witness", "serve", "--listen")
        refused = person(*serve, f"127.0.0.1:{free_port()}", "--folder", str(tmp_path / "w"), expect=1)
        assert "another witness serves from this folder" in refused
        refused = person(*serve, f"127.0.0.1:{port}", "--folder", str(tmp_path / "v"), "--name", "v", expect=2)
        assert "Address already in use" in refused
