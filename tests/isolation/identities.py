"""What organizations have for signing in: clients, service accounts, static keys, providers, provisioning; and the
kinds of credential that come of them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from tests.isolation.names import SHARED, label, secret, word

if TYPE_CHECKING:
    from tests.isolation.orgs import Planted, World

JWKS = (
    '{{"keys":[{{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"{kid}",'
    '"x":"WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis","y":"y77t-RvAHRKTsSGdIYUfweuOvwrvDD-Q3Hv5J0fSKbE"}}]}}'
)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def clients(world: World, planted: Planted) -> None:
    """Service accounts, a program that signs in as one, and a web client with a key and addresses of its own."""
    pair = ""
    org, pem = planted.id, planted.authority()
    for number, kind in enumerate(("services", "machine")):
        made = planted.post("services", {"name": f"{label(org)}-{kind}", "roles": ["member"]})
        planted.ids["services"] = made["id"]
        name = SHARED if number == 0 else f"{label(org)}-clients"
        body = {
            "auth_method": "client_secret_basic",
            "grant_types": ["client_credentials"],
            "planes": ["v1"],
            "service": made["id"],
        }
        planted.post("clients", {"name": name, "title": f"{word(org)} client", **body})
        shown = planted.post(f"clients/{name}/secret", {})
        pair = base64.b64encode(f"{org}.{name}:{shown['secret']}".encode()).decode()
        trust = {"service": made["id"], "issuer": f"https://{word(org)}.example.com", "audience": word(org)}
        trust_name = SHARED if number == 0 else f"{label(org)}-trusts"
        planted.post("trusts", {"name": trust_name, "claims": [f"sub={word(org)}"], "ca_pem": pem, **trust})
    planted.ids["clients"], planted.alike["clients"] = f"{label(org)}-clients", SHARED
    planted.ids["trusts"], planted.alike["trusts"] = f"{label(org)}-trusts", SHARED
    by_secret = {"authorization": f"Basic {pair}"}
    planted.credentials["client secret"] = {"oauth": by_secret, "admin": by_secret, "public": by_secret}
    answer = world.gateway.http.post(
        f"{world.gateway.url}/oauth/token", data={"grant_type": "client_credentials"}, headers=by_secret
    )
    assert answer.status_code == 200, answer.text
    token = bearer(answer.json()["access_token"])
    planted.credentials["service token"] = {"public": token, "admin": token, "opens public": token}
    key = {"auth_method": "private_key_jwt", "jwks": JWKS.format(kid=word(org))}
    place = {"redirect_uris": [f"https://{word(org)}.example.com/back"]}
    planted.post("clients", {"name": f"{label(org)}-web", "title": f"{word(org)} web", **key, **place})


def static_keys(world: World, planted: Planted) -> None:
    org = planted.id
    person = planted.people["member"].member
    body = {"subject": person, "name": f"{word(org)} key", "models": [f"{label(org)}-models", SHARED]}
    made = planted.post("personal-tokens", body)
    planted.ids["personal-tokens"] = made["token"]["id"]
    key = bearer(made["key"])
    planted.credentials["personal token"] = {"public": key, "admin": key, "opens public": key}


def sessions(world: World, planted: Planted) -> None:
    found = planted.owner.admin("GET", planted.path("sessions")).json()
    planted.ids["sessions"] = found["items"][0]["id"]


def provider(world: World, planted: Planted) -> None:
    org = planted.id
    planted.put(
        "idp",
        {
            "issuer": f"https://{word(org)}.example.com",
            "client_id": word(org),
            "ca_pem": planted.authority(),
            "scopes": ["openid", word(org)],
            "email_claim": f"{word(org)}_email",
            "name_claim": f"{word(org)}_name",
            "groups_claim": f"{word(org)}_groups",
            "domains": [f"{word(org)}.example.com"],
            "claims": [{"name": word(org), "value": word(org)}],
            "group_roles": [{"group": word(org), "role": "member"}],
            "group_teams": [{"group": word(org), "team": f"{label(org)}-teams"}],
            "demands": [{"role": "admin", "acr": [word(org)], "amr": []}],
        },
    )
    planted.put("idp/secret", {"client_secret": secret(org)})
    planted.ids["links"] = planted.people["member"].member


def scim(world: World, planted: Planted) -> None:
    """A provisioning token, a user and a group that it made, and groups that give roles."""
    org = planted.id
    made = planted.post("scim/tokens", {"name": f"{word(org)} token"})
    planted.ids["tokens"] = made["token"]["id"]
    token = bearer(made["secret"])
    planted.credentials["SCIM token"] = {"admin": token, "public": token, "opens scim": token}
    planted.put("scim", {"group_roles": [{"group": f"{word(org)} group", "role": "member"}]})
    base = f"{world.gateway.admin_url}/scim/v2/{org}"
    user = {
        "userName": f"{word(org)}.scim@{org}.test",
        "externalId": word(org),
        "displayName": word(org),
        "title": word(org),
        "emails": [{"value": f"{word(org)}.scim@{org}.test", "primary": True}],
    }
    for kind, body in (
        ("Users", user),
        ("Groups", {"displayName": f"{word(org)} group", "externalId": word(org)}),
    ):
        schema = f"urn:ietf:params:scim:schemas:core:2.0:{kind[:-1]}"
        answer = world.gateway.http.post(f"{base}/{kind}", json={"schemas": [schema], **body}, headers=token)
        assert answer.status_code == 201, answer.text
        planted.ids[kind] = answer.json()["id"]
