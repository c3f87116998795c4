"""What organizations have on the fake control plane: collections with versions, keys of upstreams, used limits."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.plane_answers import Answer, Place, Refused, Seen

READ_ONLY = {"org", "version", "created_at"}


class Items(Place):
    """`put` lets something exist. `buckets` and `report` are what use and simulation of limits say."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        self.keys: dict[tuple[str, str], tuple[int, str]] = {}
        self.schedules: dict[tuple[str, str], dict[str, Any]] = {}
        self.certs: dict[tuple[str, str], str] = {}
        self.buckets: list[dict[str, Any]] = []
        self.report: dict[str, Any] | None = None

    def put(self, org: str, kind: str, key: str, **item: Any) -> None:
        """Let something exist."""
        name = "id" if kind in ("members", "orgs") else "name"
        scope = {} if kind == "orgs" else {"org": org}
        self.items.setdefault((org, kind), {})[key] = {**scope, name: key, "version": 1, **item}

    def _collection(self, seen: Seen, org: str, kind: str, name: str, body: Any) -> Answer:
        items = self.items.setdefault((org, kind), {})
        if seen.method == "GET":
            wanted = {k: v for k, v in seen.query.items() if k not in ("limit", "after")}
            found = [i for i in items.values() if all(str(i.get(k)) == v for k, v in wanted.items())]
            # Pages of two: a client that reads one page only is found out.
            at = int(seen.query.get("after") or 0)
            return 200, {"items": found[at : at + 2], "next": str(at + 2) if at + 2 < len(found) else ""}, {}
        self._known(body)
        key = body.get(name) or "mem_new"
        if key in items:
            raise Refused(409, f"{key} exists")
        self.put(org, kind, key, **body)
        if kind == "members":
            return 201, self._invited(org, key), {"etag": '"1"'}
        return 201, items[key], {"etag": '"1"', "location": seen.path + "/" + key}

    def _invited(self, org: str, key: str) -> dict[str, Any]:
        url = self.origin + "/oauth/invitation"
        return {
            "member": self.items[org, "members"][key],
            "invitation": {"code": "inv-2", "expires_at": 2_000_000_000, "url": url},
        }

    def _item(self, seen: Seen, org: str, kind: str, key: str, body: Any) -> Answer:
        items = self.items.setdefault((org, kind), {})
        if key not in items:
            raise Refused(404, "There is nothing here, or it is not yours to see.")
        item = items[key]
        if seen.method == "GET":
            return 200, item, {"etag": f'"{item["version"]}"'}
        if "if-match" not in seen.headers:
            raise Refused(428, "Send If-Match")
        if seen.headers["if-match"] != f'"{item["version"]}"':
            raise Refused(412, f"It was changed meanwhile: the current version is {item['version']}.")
        if seen.method == "DELETE":
            del items[key]
            return 204, "", {}
        self._known(body)
        items[key] = {**item, **body, "version": item["version"] + 1}
        return 200, items[key], {"etag": f'"{items[key]["version"]}"'}

    def _state(self, org: str, kind: str, key: str, verb: str) -> Answer:
        item = self.items.get((org, kind), {}).get(key)
        if item is None:
            raise Refused(404, "There is nothing here, or it is not yours to see.")
        item["state"] = "suspended" if verb == "suspend" else "active"
        return 200, item, {}

    def _known(self, body: dict[str, Any]) -> None:
        if unknown := sorted(READ_ONLY & body.keys()):
            raise Refused(
                422, "A field is not known.", [{"field": f, "message": "is not known here"} for f in unknown]
            )

    def _key(self, seen: Seen, org: str, name: str, body: Any) -> Answer:
        version = self.keys.get((org, name), (0, ""))[0]
        if seen.method in ("PUT", "POST"):
            if seen.method == "POST" and "bad" in body["key"]:
                raise Refused(409, "The new key was tried and did not pass. Nothing is changed.")
            self.keys[org, name] = (version + 1, body["key"])
            return 200, {"version": version + 1}, {}
        if seen.method == "DELETE":
            self.keys.pop((org, name), None)
            return 204, "", {}
        return 200, {"version": version, "set": (org, name) in self.keys}, {}

    def _schedule(self, seen: Seen, org: str, name: str, body: Any) -> Answer:
        if seen.method == "PUT":
            self.schedules[org, name] = {**body, "next_at": 1_800_000_000, "failure": ""}
        elif seen.method == "DELETE":
            self.schedules.pop((org, name), None)
            return 204, "", {}
        if (org, name) not in self.schedules:
            raise Refused(404, "There is nothing here, or it is not yours to see.")
        return 200, self.schedules[org, name], {}

    def _cert(self, seen: Seen, org: str, name: str, body: Any) -> Answer:
        if seen.method == "PUT":
            if "BEGIN PRIVATE KEY" not in body["key"]:
                raise Refused(422, "key: is not a private key in PEM (BEGIN PRIVATE KEY)")
            self.certs[org, name] = body["cert"]
            return 200, {"version": 1}, {}
        if seen.method == "DELETE":
            self.certs.pop((org, name), None)
            return 204, "", {}
        state: dict[str, Any] = {"version": 1, "set": (org, name) in self.certs}
        if state["set"]:
            state |= {"subject": "CN=gw", "issuer": "CN=ca", "serial": "1f", "not_before": 1, "not_after": 86_400}
        return 200, state, {}

    def _used(self, seen: Seen, org: str, limit: str) -> dict[str, Any]:
        """What `buckets` says, narrowed as the query asks."""
        if limit and limit not in self.items.get((org, "limits"), {}):
            raise Refused(404, "There is nothing here, or it is not yours to see.")
        wanted = {k: v for k, v in {**seen.query, "limit": limit}.items() if v and k != "top"}
        found = [one for one in self.buckets if all(one[k] == v for k, v in wanted.items())]
        return {"items": found[: int(seen.query.get("top", 100))], "buckets": len(found)}

    def _simulated(self, body: Any) -> str:
        lines = [{"read": 1, "of": 2}, {"read": 2, "of": 2}]
        if self.report is not None:
            said = {"since": 1_795_000_000, "until": 1_795_086_400, **self.report}
            lines.append({"report": {"limit": {"org": "acme", **body["limit"]}, **said}})  # type: ignore[dict-item]
        return "".join(json.dumps(line) + "\n" for line in lines)
