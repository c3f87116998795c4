"""Every known attack on JWTs against a running gateway: the data plane, the admin API and introspection.

None is accepted, none is answered with a failure, and the good token they are made from is good before and after.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.oauth.signing import SigningKeys
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.sealed import SealedFile
from gateway.settings import load
from tests.kit.gateway import RunningGateway, Session
from tests.kit.jwt_attacks import Attack, attacks
from tests.kit.jwt_forged import FORGED
from tests.kit.jwt_signed import SIGNED
from tests.kit.jwt_target import Target

LONGEST_LINE = 8_000
"""Bytes of a token that goes into a header line as clients write it; others are written by hand."""


@dataclass
class Place:
    gateway: RunningGateway
    owner: Session
    keys: SigningKeys
    basic: tuple[str, str]
    """A client that may ask what tokens are."""
    counted: dict[str, Counter[str]] = field(default_factory=dict)

    def target(self, token: str) -> Target:
        claims = self.keys.own_claims(token)
        assert claims is not None
        head = {"typ": "at+jwt", "alg": "RS256", "kid": self.keys.kid}
        key = self.keys._key.private_key
        assert key is not None
        return Target(key, head, claims)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with RunningGateway(tmp_path_factory.mktemp("attacks") / "home") as gateway:
        owner = gateway.owner()
        settings = load(gateway.installed.settings)
        master = read_master_key(settings.secrets.master_key, settings.home)
        sealed = SealedFile(settings.path(settings.secrets.path), master)
        keys = asyncio.run(SigningKeys.load_or_create(sealed, time.time))
        service = owner.create("services", name="attacked", roles=["admin"])["id"]
        client = {"title": "x", "auth_method": "client_secret_basic", "grant_types": ["client_credentials"]}
        owner.create("clients", name="asker", planes=["v1", "admin"], service=service, **client)
        made = owner.admin("POST", "/admin/v1/orgs/acme/clients/asker/secret", json={}).json()
        place = Place(gateway, owner, keys, (made["client_id"], made["secret"]))
        yield place
        for surface, count in place.counted.items():
            print(f"{surface}: {dict(count)}")


@dataclass(frozen=True)
class Answer:
    status: int
    accepted: bool


def by_header(place: Place, url: str) -> Callable[[Attack], Answer]:
    def ask(attack: Attack) -> Answer:
        token = attack.token if isinstance(attack.token, bytes) else attack.token.encode("utf-8", "surrogatepass")
        if not 0 < len(token) <= LONGEST_LINE or any(byte < 0x21 or byte > 0x7E for byte in token):
            status = _by_hand(place, url, token)
        else:
            headers = {b"authorization": b"Bearer " + token}
            status = place.gateway.http.get(url, headers=headers).status_code
        return Answer(status, 200 <= status < 400)

    return ask


def _by_hand(place: Place, url: str, token: bytes) -> int:
    """A request that no library writes. 0: the server hung up, which is no answer to a token."""
    target = httpx.URL(url)
    context = ssl.create_default_context(cafile=str(place.gateway.ca))
    lines = (
        b"GET " + target.raw_path + b" HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Authorization: Bearer " + token,
        b"Connection: close",
        b"",
        b"",
    )
    with (
        socket.create_connection((target.host, target.port or 443), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        try:
            connection.sendall(b"\r\n".join(lines))
            first = connection.makefile("rb").readline()
        except (ConnectionError, ssl.SSLError):
            return 0
    return int(first.split()[1]) if first.startswith(b"HTTP/") else 0


def by_introspection(place: Place) -> Callable[[Attack], Answer]:
    def ask(attack: Attack) -> Answer:
        answer = place.gateway.http.post(
            f"{place.gateway.url}/oauth/introspect", data={"token": attack.token}, auth=place.basic
        )
        return Answer(answer.status_code, answer.status_code == 200 and bool(answer.json()["active"]))

    return ask


def shown(attack: Attack) -> list[object]:
    """Its parts, those that read as base64 in clear: what a failing test has to say."""
    text = attack.token if isinstance(attack.token, str) else attack.token.decode("latin-1")
    made: list[object] = []
    for part in text.split(".")[:3]:
        try:
            made.append(urlsafe_b64decode(part + "=" * (-len(part) % 4))[:400])
        except ValueError:
            made.append(part[:400])
    return made


def judge(place: Place, surface: str, target: Target, ask: Callable[[Attack], Answer], every: int = 1) -> None:
    good = Attack("good", target.good(), signed=True)
    assert ask(good).accepted, "the token that attacks are made from"
    accepted: list[Any] = []
    failed: list[Any] = []
    count: Counter[str] = Counter()
    for number, attack in enumerate(attacks(target)):
        if number % every:
            continue
        answer = ask(attack)
        count[attack.family] += 1
        if answer.accepted:
            accepted.append((attack.family, shown(attack)))
        if answer.status >= 500:
            failed.append((answer.status, attack.family, shown(attack)))
    count["attacks"] = sum(count.values())
    place.counted[surface] = count | Counter({"accepted": len(accepted), "failed": len(failed)})
    assert not accepted + failed, "\n".join(map(str, accepted + failed))
    assert ask(good).accepted
    assert set(count) >= {*FORGED, *SIGNED} - {"good"}


def test_there_are_enough_of_them(place: Place) -> None:
    made = list(attacks(place.target(place.owner.access_token)))
    assert len(made) > 800
    assert len({attack.token for attack in made}) > 0.95 * len(made)
    assert sum(not attack.signed for attack in made) > 400


def test_the_data_plane_takes_none(place: Place) -> None:
    target = place.target(place.owner.access_token)
    judge(place, "data plane", target, by_header(place, f"{place.gateway.url}/v1/models"))


def test_the_admin_api_takes_none(place: Place) -> None:
    target = place.target(place.owner.admin_token)
    judge(place, "admin API", target, by_header(place, f"{place.gateway.admin_url}/admin/v1/me"), every=3)


def test_introspection_takes_none(place: Place) -> None:
    target = place.target(place.owner.access_token)
    judge(place, "introspection", target, by_introspection(place), every=3)
