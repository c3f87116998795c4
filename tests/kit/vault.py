"""A Vault to test against: the fake one, or the real one of `VAULT_ADDR`, set up as an operator does it."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.secret import Secret
from gateway.secrets.sealed import SealedFile
from gateway.secrets.vault import VaultKeys
from gateway.secrets.vault_client import VaultServer
from gateway.secrets.vault_setup import Binding, apply, new_secret_id, steps
from gateway.vault_settings import VaultSettings
from tenants.ids import OrgId
from tests.fakes.vault import ROOT, UNSEAL, FakeVault

KINDS = ("fake", "real")
NO_SERVER = "skipped: no Vault server (VAULT_ADDR and VAULT_TOKEN, and VAULT_UNSEAL_KEY to seal it)"


@dataclass(frozen=True)
class VaultPlace:
    """One server, a mount and role names of a test's own in it, and a folder for credentials."""

    address: str
    root: str
    unseal_key: str
    home: Path
    prefix: str
    fake: FakeVault | None
    http: httpx.Client

    def settings(self, **more: Any) -> VaultSettings:
        patient = {"timeout_s": 10}  # a busy machine may take longer than the two seconds of every day
        given = {"address": self.address, "mount": self.prefix, "role": self.prefix + "-{org}", **patient, **more}
        return VaultSettings.model_validate(given)

    def prepare(self, *orgs: str, wrap: str = "", **more: Any) -> VaultSettings:
        """Roles and policies for `orgs`, with AppRole and each one's credential in its file."""
        vault = self.settings(**more)
        server = VaultServer(vault, self.home, threads=1)
        for org in map(OrgId, orgs):
            list(apply(server, vault, org, Secret(self.root), steps(vault, org, Binding())))
            self.credential(org, new_secret_id(server, vault, org, Secret(self.root), wrap))
        server.close()
        return vault

    def credential(self, org: str, secret: Secret) -> Path:
        path = self.home / f"vault/{org}.secret-id"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(secret.reveal())
        path.chmod(0o600)
        return path

    def keys(self, vault: VaultSettings) -> VaultKeys:
        memory = SealedFile(self.home / "secrets.sealed", Secret(b"m" * 32))
        return VaultKeys(vault, self.home, memory, time.monotonic)

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str) -> Any:
        """One request as the root or with `token` ('' for none); the answer, whatever it is."""
        token = self.root if token is None else token
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["x-vault-token"] = token
        return self.http.request(method, f"{self.address}/v1/{path}", json=body, headers=sent)

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """Sealed inside the block. Skips where a real server's unseal key is not known."""
        if not self.unseal_key:
            pytest.skip(NO_SERVER)
        assert self.call("PUT", "sys/seal").status_code == 204
        try:
            yield
        finally:
            answer = self.call("PUT", "sys/unseal", {"key": self.unseal_key}, token="")
            assert answer.json()["sealed"] is False, answer.text
            end = time.monotonic() + 60
            while self.call("GET", f"{self.prefix}/config").status_code == 503:
                assert time.monotonic() < end, "it does not come back"


@contextmanager
def vault_place(kind: str, home: Path) -> Iterator[VaultPlace]:
    """`kind` is one of `KINDS`. Skips, and says so, where there is no real server."""
    prefix = "t-" + secrets.token_hex(4)
    with httpx.Client(trust_env=False, timeout=20) as http:
        if kind == "fake":
            with FakeVault() as fake:
                yield VaultPlace(fake.address, ROOT, UNSEAL, home, prefix, fake, http)
            return
        address, root = os.environ.get("VAULT_ADDR"), os.environ.get("VAULT_TOKEN")
        if not address or not root:
            pytest.skip(NO_SERVER)
        yield VaultPlace(address, root, os.environ.get("VAULT_UNSEAL_KEY", ""), home, prefix, None, http)
