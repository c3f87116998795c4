"""The audit log of the fake control plane: its lines, the proofs of its tree, and what is signed of it."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from gateway.audit.chain import Chain
from gateway.audit.merkle import HashTree, leaf_hash
from gateway.audit.proofs import consistency, inclusion
from tests.fakes.plane_answers import Answer, Seen


class AuditLog:
    """`chain`, `lines`, `checkpoint` and `key` are for a test to fill; proofs are made from `lines`."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.lines: list[bytes] = []
        self.checkpoint = ""
        self.key = ""
        self.begin = 0
        self.policy = "quorum none\n"
        self.actors: dict[str, list[str]] = {}

    def _proof(self, seen: Seen, what: str) -> Answer:
        asked = seen.query
        if what == "find":
            before = int(asked.get("before", len(self.lines)))
            start = max(before - 500, 0)
            span = [json.loads(line) for line in self.lines[start:before]]
            found = [
                entry["index"] for entry in span if asked["id"] in (entry["_document_id"], entry.get("request_id"))
            ]
            return 200, {"index": max(found, default=-1), "before": start}, {}
        tree = HashTree(map(leaf_hash, self.lines))
        if what == "consistency":
            hashes = consistency(tree, int(asked["old"]), int(asked["new"]))
            return 200, {"old": int(asked["old"]), "new": int(asked["new"]), "hashes": _base64(hashes)}, {}
        index, size = int(asked["index"]), int(asked["size"])
        line = self.lines[index].decode()
        hashes = inclusion(tree, index, size)
        return 200, {"index": index, "size": size, "entry": line, "hashes": _base64(hashes)}, {}

    def _audit(self, seen: Seen, what: str) -> Answer:
        plain = {"content-type": "text/plain"}
        if what == "entries":
            at = int(seen.query["after"])
            found = [json.loads(line) for line in self.lines[at : at + int(seen.query["limit"])]]
            kept = [e for e in found if seen.query.get("action", e["action"]) == e["action"]]
            return 200, {"items": kept, "next": at + len(found)}, {}
        if what == "log":
            span = self.lines[int(seen.query["start"]) : int(seen.query["end"])]
            return 200, b"".join(line + b"\n" for line in span), {"content-type": "application/jsonl"}
        if what == "export":
            span = self.lines[int(seen.query["after"]) : int(seen.query["end"])]
            kept_lines = [line + b"\n" for line in span if _matches(json.loads(line), seen.query)]
            # As the real one: it says that it searches on, and when it has said all.
            return 200, b" \n" + b"".join(kept_lines) + b"\n", {"content-type": "application/jsonl"}
        if what == "leaves":
            span = self.lines[int(seen.query["start"]) : int(seen.query["end"])]
            return 200, b"".join(map(leaf_hash, span)), {"content-type": "application/octet-stream"}
        if what in ("proof", "consistency", "find"):
            return self._proof(seen, what)
        if what == "actors":
            return 200, {"items": self.actors.get(seen.query["actor"], [])}, {}
        if what == "hold":
            return 200, {"hold": "", "retention_days": 2_555, "begin": self.begin, "size": len(self.lines)}, {}
        return 200, {"checkpoint": self.checkpoint, "key": self.key, "policy": self.policy}[what], plain


def _base64(hashes: list[bytes]) -> list[str]:
    return [b64encode(one).decode() for one in hashes]


def _matches(entry: dict[str, Any], query: dict[str, str]) -> bool:
    exact = ("action", "outcome", "model", "client")
    at = entry["@timestamp"] // 1000
    return (
        all(entry.get(name, "") == query[name] for name in exact if name in query)
        and ("actor" not in query or entry["actor"] in query["actor"].split(","))
        and int(query.get("since", 0)) <= at < int(query.get("until", 2**40))
    )
