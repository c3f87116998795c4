"""A gateway with two witnesses: all of two, one of two, one of them down, and what an auditor then gets."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from gateway.audit.note import Checkpoint, VerifierKey, parse_checkpoint, split_note
from gateway.audit.policy import judge, parse_policy
from gateway.clock import SystemClock
from gateway.ownkeys import OwnKeys
from gateway.settings import load
from gateway.workerparts import sealed_file
from tenants.ids import OrgId
from tests.kit.gateway import PASSWORD, RunningGateway, Session
from tests.kit.orgate import Orgate
from tests.kit.wait import until
from tests.kit.witness import RunningWitness, witness


def write_policy(home: Path, quorum: str, *witnesses: RunningWitness) -> None:
    names = [w.key.name for w in witnesses]
    lines = [f"witness {w.key.name} {w.key} {w.url}/\n" for w in witnesses]
    group = f"group both {quorum} {' '.join(names)}\nquorum both\n"
    (home / "witnesses.policy").write_text("".join(lines) + group)


async def log_key(gateway: RunningGateway) -> VerifierKey:
    """The key of acme's log, made before the first start."""
    settings = load(gateway.installed.settings)
    own = OwnKeys(settings, sealed_file(settings), SystemClock())
    unlocked = await own.unlock(asyncio.Event(), lambda: None)
    await own.aclose()
    assert unlocked
    return unlocked.signer.key(OrgId("acme"))


def head(session: Session, query: str = "") -> Checkpoint:
    answer = session.admin("GET", f"/admin/v1/orgs/{session.org}/audit/checkpoint{query}")
    return parse_checkpoint(split_note(answer.text)[0])


def change(session: Session, name: str) -> int:
    """Make an entry; returns the size of a checkpoint over it."""
    session.create("teams", name=name)
    until(lambda: f'"{name}"' in entries(session), f"an entry of {name}")
    return head(session, "?newest=true").size


def entries(session: Session) -> str:
    return session.admin("GET", f"/admin/v1/orgs/{session.org}/audit/entries?limit=1000").text


def test_a_gateway_has_its_checkpoints_witnessed(tmp_path: Path) -> None:
    settings = {
        "ORGATE_AUDIT__WITNESS_POLICY": "witnesses.policy",
        "ORGATE_AUDIT__WITNESS_LATE_S": "10",
        "ORGATE_AUDIT__PUBLISH_FILE": "checkpoints.jsonl",
        "ORGATE_AUDIT__PUBLISH_GIT": "checkpoints.git",
    }
    gateway = RunningGateway(tmp_path / "gateway", settings=settings)
    subprocess.run(["git", "init", "--quiet", "--bare", str(gateway.home / "checkpoints.git")], check=True)
    key = asyncio.run(log_key(gateway))
    with (
        witness(tmp_path / "w1", "w1.example", [key]) as w1,
        witness(tmp_path / "w2", "w2.example", [key]) as w2,
    ):
        write_policy(gateway.home, "all", w1, w2)
        with gateway:
            owner = gateway.owner()
            _two_of_two(owner, w2)
            gateway.stop()
            write_policy(gateway.home, "any", w1, w2)
            gateway.start()
            _one_of_two(tmp_path, owner, w1)
    published = (gateway.home / "checkpoints.jsonl").read_text()
    assert '"org":"acme"' in published
    shown = ["git", "-C", str(gateway.home / "checkpoints.git"), "show", "checkpoints:acme/checkpoint"]
    assert "/audit/acme" in subprocess.run(shown, check=True, capture_output=True, text=True).stdout


def _two_of_two(owner: Session, w2: RunningWitness) -> None:
    status = f"/admin/v1/orgs/{owner.org}/audit/witnesses"

    def standing() -> dict[str, object]:
        found: dict[str, object] = owner.admin("GET", status).json()
        return found

    size = change(owner, "before")
    until(lambda: int(str(standing()["witnessed_size"])) >= size, "both cosign")
    assert faults(standing()) == ["", ""]
    policy = parse_policy(owner.admin("GET", f"/admin/v1/orgs/{owner.org}/audit/policy").text)
    assert judge(policy, _checkpoint(owner)).met

    # One is down: the log goes on, and what is served ends where both had seen it.
    w2.kill()
    before = head(owner)
    newest = change(owner, "after")
    until(lambda: faults(standing())[1] != "", "the other one is missed")
    assert head(owner).size == int(str(standing()["witnessed_size"])) < newest
    answer = owner.admin("GET", f"/admin/v1/orgs/{owner.org}/audit/checkpoint")
    assert "has its quorum of witnesses, and ends before the newest" in answer.headers["x-orgate-remark"]
    assert head(owner).size >= before.size
    assert judge(policy, answer.text).met
    ready = owner.gateway.http.get(owner.gateway.admin_url + "/readyz")
    assert (ready.status_code, ready.text.split("\n")[0]) == (200, "ok")


def _one_of_two(tmp_path: Path, owner: Session, w1: RunningWitness) -> None:
    size = change(owner, "one-of-two")
    until(lambda: head(owner).size >= size, "one is enough")
    policy = parse_policy(owner.admin("GET", f"/admin/v1/orgs/{owner.org}/audit/policy").text)
    verdict = judge(policy, _checkpoint(owner))
    assert verdict.met
    assert [one.witness for one in verdict.cosigned] == [w1.key.name]
    assert verdict.missing == ("w2.example",)

    # An auditor's part: export, and verify against the keys that the witnesses gave them.
    person = Orgate(tmp_path / "owner")
    gateway = owner.gateway
    person.login(
        server=gateway.url,
        admin=gateway.admin_url,
        ca=gateway.ca,
        org=owner.org,
        email="owner@acme.test",
        password=PASSWORD,
    )
    (tmp_path / "policy").write_text(person("audit", "witness", "policy"))
    assert "w2.example" in person("audit", "witness", "status")
    person("audit", "export", str(tmp_path / "pack"))
    verified = person.json("audit", "verify", str(tmp_path / "pack"), "--witnesses", str(tmp_path / "policy"))
    assert verified["ok"], verified
    other = (tmp_path / "policy").read_text().replace("group both 1", "group both 2")
    (tmp_path / "policy").write_text(other)
    person("audit", "verify", str(tmp_path / "pack"), "--witnesses", str(tmp_path / "policy"), expect=1)


def _checkpoint(session: Session) -> str:
    return session.admin("GET", f"/admin/v1/orgs/{session.org}/audit/checkpoint").text


def faults(standing: dict[str, object]) -> list[str]:
    items = standing["items"]
    assert isinstance(items, list)
    return [item["fault"] for item in items]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("witness w nonsense https://w.example\nquorum w\n", "line 1: the key is not of the form"),
        ("quorum none\n", "names no witness"),
    ],
)
def test_a_policy_that_cannot_be_used_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    gateway = RunningGateway(tmp_path / "gateway")
    (gateway.home / "policy").write_text(text)
    person = Orgate(tmp_path / "config", {"ORGATE_AUDIT__WITNESS_POLICY": "policy"})
    refused = person("serve", "--settings", str(gateway.installed.settings), expect=1)
    assert said in refused
    gateway.http.close()
