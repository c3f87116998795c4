"""The fake Vault's Transit: keys that wrap and keys that sign, by versions, with the real engine's refusals."""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.fakes.vault_reply import Reply, failed


class TransitEngine:
    """One mount of it."""

    def __init__(self, now: Callable[[], str]) -> None:
        self._now = now
        self._keys: dict[str, TransitKey] = {}

    def serve(self, method: str, path: str, body: dict[str, Any]) -> Reply:
        what, _, rest = path.partition("/")
        name, _, more = rest.partition("/")
        if what == "keys" and not more and method != "GET":
            self._keys.setdefault(name, TransitKey(str(body.get("type", "aes256-gcm96")), self._now))
        key = self._keys.get(name)
        if key is None:
            return (
                failed(404)
                if what == "keys"
                else failed(400, f"{'signing' if what == 'sign' else 'encryption'} key not found")
            )
        match what, more:
            case "keys", "rotate":
                key.rotate()
            case "keys", "config":
                key.oldest = int(body.get("min_decryption_version", 1))
            case "encrypt", "":
                return key.encrypt(str(body.get("plaintext", "")))
            case "decrypt", "":
                found = key.decrypt(str(body.get("ciphertext", "")))
                return found if isinstance(found, Reply) else Reply.of({"plaintext": found})
            case "rewrap", "":
                found = key.decrypt(str(body.get("ciphertext", "")))
                return found if isinstance(found, Reply) else key.encrypt(found)
            case "sign", "sha2-256":
                return key.sign(body)
        if what == "keys" and more in ("", "rotate", "config"):
            return key.described(name)
        return failed(404, "1 error occurred:\n\t* unsupported path\n\n")


class TransitKey:
    """What is wrapped is kept here: a ciphertext is only a name for it."""

    def __init__(self, kind: str, now: Callable[[], str]) -> None:
        self._kind = kind
        self._now = now
        self._wrapped: dict[str, tuple[int, str]] = {}
        self._versions: list[tuple[str, RSAPrivateKey | None]] = []
        self.oldest = 1
        self.rotate()

    def rotate(self) -> None:
        made = generate_private_key(65537, 2048) if self._kind == "rsa-2048" else None
        self._versions.append((self._now(), made))

    def described(self, name: str) -> Reply:
        keys: dict[str, Any] = {}
        for number, (made_at, private) in enumerate(self._versions, 1):
            if number < self.oldest:
                continue
            if private is None:
                keys[str(number)] = 1_800_000_000
                continue
            pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            keys[str(number)] = {"creation_time": made_at, "name": "rsa-2048", "public_key": pem.decode()}
        found = {"name": name, "type": self._kind, "keys": keys, "latest_version": len(self._versions)}
        return Reply.of({**found, "min_decryption_version": self.oldest})

    def encrypt(self, plaintext: str) -> Reply:
        try:
            b64decode(plaintext, validate=True)
        except ValueError:
            return failed(400, "failed to base64-decode plaintext")
        version = len(self._versions)
        box = secrets.token_hex(20)
        self._wrapped[box] = (version, plaintext)
        return Reply.of({"ciphertext": f"vault:v{version}:{box}", "key_version": version})

    def decrypt(self, ciphertext: str) -> str | Reply:
        parts = ciphertext.split(":")
        if len(parts) != 3 or parts[0] != "vault" or not parts[1].startswith("v"):
            return failed(400, "invalid ciphertext: no prefix")
        if not parts[1][1:].isdigit() or not 0 < int(parts[1][1:]) <= len(self._versions):
            return failed(400, "invalid ciphertext: version is too new")
        if int(parts[1][1:]) < self.oldest:
            return failed(400, "ciphertext or signature version is disallowed by policy (too old)")
        version, plaintext = self._wrapped.get(parts[2], (0, ""))
        if f"v{version}" != parts[1]:
            return failed(400, "cipher: message authentication failed")
        return plaintext

    def sign(self, body: dict[str, Any]) -> Reply:
        version = int(body.get("key_version") or len(self._versions))
        if not 0 < version <= len(self._versions):
            return failed(400, "requested version for signing is higher than the latest key version")
        private = self._versions[version - 1][1]
        if private is None:
            return failed(400, f"key type {self._kind} does not support signing")
        if body.get("signature_algorithm") != "pkcs1v15":
            return failed(400, f"unsupported rsa signature algorithm {body.get('signature_algorithm')}")
        signature = private.sign(b64decode(body["input"]), PKCS1v15(), SHA256())
        return Reply.of({"signature": f"vault:v{version}:{b64encode(signature).decode()}", "key_version": version})
