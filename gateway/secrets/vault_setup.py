"""What an empty Vault needs before an organization's keys can be in it: engine, auth method, policy, role.

Pure: `steps` says what is to be written, in order. `apply` writes it, with the token of a Vault administrator;
each step can be repeated, so a run that broke off is simply run again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from gateway.secret import Secret
from gateway.secrets.store import StoreUnavailableError
from gateway.secrets.vault_client import VaultAnswerError, VaultServer
from gateway.secrets.vault_login import role_of
from gateway.vault_settings import VaultSettings
from tenants.ids import PLATFORM, OrgId

TOKEN_TTL: Final = "20m"  # noqa: S105 - a duration
TOKEN_MAX_TTL: Final = "24h"  # noqa: S105 - a duration


class SetupError(ValueError):
    """These settings need something that was not given. The message says which option gives it."""


class Binding(Struct, frozen=True):
    """Who may log in as the role: a Kubernetes service account, or the subject and audience of a JWT."""

    service_account: str = ""
    subject: str = ""
    audience: str = ""


class Step(Struct, frozen=True):
    """One write. `once`: for the whole server; done already is as good as done now."""

    what: str
    path: str
    body: Mapping[str, Any]
    once: bool = False

    def command(self) -> str:
        """The same as a command of `vault`; that of OpenBao is called `bao` and takes the same."""
        if "policy" in self.body:
            name = self.path.rpartition("/")[2]
            return f"vault policy write {name} - <<'EOF'\n{self.body['policy']}EOF"
        if self.path.startswith("sys/mounts/") and self.body["type"] == "transit":
            return f"vault secrets enable -path={self.path.removeprefix('sys/mounts/')} transit"
        if self.path.startswith("sys/mounts/"):
            return f"vault secrets enable -path={self.path.removeprefix('sys/mounts/')} -version=2 kv"
        if self.path.startswith("sys/auth/"):
            return f"vault auth enable -path={self.path.removeprefix('sys/auth/')} {self.body['type']}"
        return f"vault write {self.path} " + " ".join(f"{key}={_value(value)}" for key, value in self.body.items())


def _value(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def policy(vault: VaultSettings, org: OrgId) -> str:
    """What the role of `org` may do: read, write and destroy its own upstreams' keys. Nothing else at all.

    The platform's may use its keys in Transit: wrap, unwrap and wrap anew; sign. It can take none of them out.
    """
    if org == PLATFORM:
        key, signing = vault.transit_key, vault.signing_key
        uses = {f"{what}/{key}": "update" for what in ("encrypt", "decrypt", "rewrap")}
        uses |= {f"keys/{signing}": "read", f"sign/{signing}/sha2-256": "update"}
        return "".join(
            f'path "{vault.transit_mount}/{path}" {{\n  capabilities = ["{can}"]\n}}\n'
            for path, can in uses.items()
        )
    rights = {"data": ["create", "update", "read"], "metadata": ["read"], "destroy": ["update"]}
    return "".join(
        f'path "{vault.mount}/{part}/orgs/{org}/upstreams/*" {{\n  capabilities = {json.dumps(can)}\n}}\n'
        for part, can in rights.items()
    )


def steps(vault: VaultSettings, org: OrgId, binding: Binding) -> list[Step]:
    """Everything for `org`, in order. Raises `SetupError`."""
    for given, option, goes_with in (
        (binding.service_account, "--service-account", ("kubernetes",)),
        (binding.subject, "--subject", ("jwt",)),
        (binding.audience, "--audience", ("jwt", "kubernetes")),
    ):
        if given and vault.auth not in goes_with:
            raise SetupError(f"{option} goes with vault.auth = {' or '.join(goes_with)}, and it is {vault.auth}")
    role, auth = role_of(vault, org), f"auth/{vault.login_mount}"
    life = {"token_policies": [role], "token_ttl": TOKEN_TTL, "token_max_ttl": TOKEN_MAX_TTL}
    made = [
        *(_transit(vault) if org == PLATFORM else [_engine(vault)]),
        Step("the policy", f"sys/policies/acl/{role}", {"policy": policy(vault, org)}),
    ]
    match vault.auth:
        case "approle":
            made += [
                Step("the role", f"{auth}/role/{role}", {"bind_secret_id": "true", **life}),
                Step("its role id", f"{auth}/role/{role}/role-id", {"role_id": role}),
            ]
        case "kubernetes":
            namespace, _, account = binding.service_account.partition("/")
            if not namespace or not account:
                raise SetupError("which pods may log in? Give `--service-account NAMESPACE/NAME`")
            bound = {"bound_service_account_names": [account], "bound_service_account_namespaces": [namespace]}
            audience = {"audience": binding.audience} if binding.audience else {}
            made.append(Step("the role", f"{auth}/role/{role}", {**bound, **audience, **life}))
        case "jwt":
            if not binding.subject or not binding.audience:
                raise SetupError("whose JWT may log in? Give `--subject SUB` and `--audience AUD`")
            bound = {"bound_subject": binding.subject, "bound_audiences": [binding.audience]}  # type: ignore[dict-item]
            made.append(
                Step("the role", f"{auth}/role/{role}", {"role_type": "jwt", "user_claim": "sub", **bound, **life})
            )
        case _:
            raise SetupError(
                "a development token is bound to no role; choose vault.auth = approle, kubernetes or jwt"
            )
    made.insert(1, Step("the auth method", f"sys/auth/{vault.login_mount}", {"type": vault.auth}, once=True))
    return made


def _engine(vault: VaultSettings) -> Step:
    body = {"type": "kv", "options": {"version": "2"}}
    return Step("the KV v2 engine", f"sys/mounts/{vault.mount}", body, once=True)


def _transit(vault: VaultSettings) -> list[Step]:
    """The engine and both keys. Making a key that is there changes nothing."""
    keys = f"{vault.transit_mount}/keys"
    return [
        Step("the Transit engine", f"sys/mounts/{vault.transit_mount}", {"type": "transit"}, once=True),
        Step("the key that wraps", f"{keys}/{vault.transit_key}", {"type": "aes256-gcm96"}),
        Step("the key that signs", f"{keys}/{vault.signing_key}", {"type": "rsa-2048"}),
    ]


def apply(
    server: VaultServer, vault: VaultSettings, org: OrgId, token: Secret, todo: list[Step]
) -> Iterator[Step]:
    """Write each step; yields it when it is done. Blocks. Raises `StoreUnavailableError`."""
    for step in todo:
        try:
            _write(server, org, token, step)
        except VaultAnswerError as error:
            if not (step.once and error.status == 400 and "already in use" in str(error)):
                raise
        yield step
    if org == PLATFORM:
        return
    try:
        server.ask(org, token, lambda client: client.adapter.get(f"/v1/{vault.mount}/config"))
    except VaultAnswerError as error:
        if error.status not in (400, 404, 405):
            raise
        wrong = StoreUnavailableError(
            f"what is mounted at {vault.mount} is no KV v2 engine: choose another vault.mount"
        )
        raise wrong from None


def _write(server: VaultServer, org: OrgId, token: Secret, step: Step) -> None:
    server.ask(org, token, lambda client: client.adapter.post(f"/v1/{step.path}", json=dict(step.body)))


def new_secret_id(server: VaultServer, vault: VaultSettings, org: OrgId, token: Secret, wrap: str = "") -> Secret:
    """A new secret id of the role of `org`; with `wrap` (a duration such as `1h`) the token that wraps it."""
    path = f"/v1/auth/{vault.login_mount}/role/{role_of(vault, org)}/secret-id"

    def work(client: Any) -> Secret:
        match client.adapter.post(path, json={}, **({"wrap_ttl": wrap} if wrap else {})):
            case {"wrap_info": {"token": str(wrapping)}} if wrap:
                return Secret(wrapping)
            case {"data": {"secret_id": str(secret_id)}} if not wrap:
                return Secret(secret_id)
        raise StoreUnavailableError(f"the server at {server.address} answers with something else than a secret id")

    return server.ask(org, token, work)
