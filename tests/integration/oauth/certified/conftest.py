"""One gateway for all of these tests, with an organization that takes proofs of possession and has clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.oauth.certified.library import Library, Person
from tests.kit.ci_issuer import CiIssuer
from tests.kit.dpop import ProofKey, number
from tests.kit.gateway import RunningGateway, Session

REDIRECTS = ["http://127.0.0.1/callback"]
SIGNS_IN = [
    "authorization_code",
    "urn:ietf:params:oauth:grant-type:device_code",
    "refresh_token",
]
AUDIENCE = "https://gateway.example/ci"


@dataclass
class House:
    gateway: RunningGateway
    owner: Session
    person: Person
    issuer: CiIssuer
    service: str
    secrets: dict[str, str]
    """Of the confidential clients, by name."""

    key: ProofKey
    """What the client `acme.signed` signs its assertions with."""

    @property
    def exchanger(self) -> str:
        return f"acme.{self.service}"

    def job(self, **changes: Any) -> str:
        return self.issuer.token(AUDIENCE, **{"repository": "acme/app", "sub": "repo:acme/app:x", **changes})

    def private(self) -> dict[str, str]:
        """The private JWK of `key`."""
        value = self.key.private.private_numbers().private_value  # type: ignore[union-attr]
        return {**self.key.jwk, "d": number(value)}


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with CiIssuer() as issuer, RunningGateway(tmp_path_factory.mktemp("certified") / "home") as gateway:
        owner = gateway.owner()
        org = owner.admin("GET", "/admin/v1/orgs/acme")
        owner.admin(
            "PUT",
            "/admin/v1/orgs/acme",
            json={**org.json(), "dpop": "optional"},
            headers={"if-match": org.headers["etag"]},
        )
        service = owner.create("services", name="build")["id"]
        owner.create("clients", name="app", title="An App", grant_types=SIGNS_IN, redirect_uris=REDIRECTS)
        secrets: dict[str, str] = {}
        for name, method in (("backend", "client_secret_basic"), ("posting", "client_secret_post")):
            owner.create(
                "clients",
                name=name,
                title="A Backend",
                auth_method=method,
                grant_types=[*SIGNS_IN, "client_credentials"],
                redirect_uris=REDIRECTS,
                service=service,
            )
            secrets[name] = owner.create(f"clients/{name}/secret")["secret"]
        key = ProofKey.make()
        owner.create(
            "clients",
            name="signed",
            title="A Backend With a Key",
            auth_method="private_key_jwt",
            grant_types=["client_credentials"],
            service=service,
            jwks=f'{{"keys": [{{"kty": "EC", "crv": "P-256", "x": "{key.jwk["x"]}", "y": "{key.jwk["y"]}"}}]}}',
        )
        owner.create(
            "trusts",
            name="main",
            service=service,
            issuer=issuer.url,
            audience=AUDIENCE,
            claims=["repository=acme/app"],
        )
        person = Person(gateway, "acme", "owner@acme.test")
        yield House(gateway, owner, person, issuer, service, secrets, key)


@pytest.fixture(scope="module")
def openid_client(house: House) -> Iterator[Library]:
    with Library("openid_client.mjs", house.person) as made:
        yield made


@pytest.fixture(scope="module")
def oauth4webapi(house: House) -> Iterator[Library]:
    with Library("oauth4webapi.mjs", house.person) as made:
        yield made
