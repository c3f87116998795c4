"""The files that the settings of witnesses name: their policy, and who vouches for their certificates."""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.audit.policy import Policy, PolicyError, parse_policy
from gateway.loopback import is_loopback
from gateway.settings import Settings


class WitnessSettingsError(Exception):
    """A file that `[audit]` names for witnesses cannot be used: `key`, what is wrong with it, what to do."""

    def __init__(self, key: str, wrong: str, fix: str) -> None:
        super().__init__(f"{key}: {wrong}; {fix}")
        self.message, self.fix = f"{key}: {wrong}", fix


def read_policy(settings: Settings) -> Policy | None:
    """The witnesses to ask; None when none are. Raises `WitnessSettingsError`."""
    if not settings.audit.witness_policy:
        return None
    key, file = "audit.witness_policy", settings.home / settings.audit.witness_policy
    try:
        policy = parse_policy(file.read_bytes())
    except OSError as error:
        fix = "write it, or leave the setting out"
        raise WitnessSettingsError(key, f"{file} cannot be read ({error.strerror})", fix) from None
    except PolicyError as error:
        fix = "mend that line" if error.line else "mend it"
        raise WitnessSettingsError(key, f"{file}: {error}", fix) from None
    if policy.logs:
        fix = "remove its log lines: the gateway asks for its own logs, of every organization"
        raise WitnessSettingsError(key, f"{file} lists a log", fix)
    if not policy.witnesses:
        raise WitnessSettingsError(key, f"{file} names no witness", "add one, or leave the setting out")
    for witness in policy.witnesses:
        if (wrong := _url_fault(witness.url)) is not None:
            fix = "write https://host, or http:// on loopback, behind its key"
            raise WitnessSettingsError(key, f"{file}: witness {witness.name} {wrong}", fix)
    return policy


def read_ca(settings: Settings) -> str:
    """PEM, '' for none. Raises `WitnessSettingsError`."""
    if not settings.audit.witness_ca:
        return ""
    file = settings.home / settings.audit.witness_ca
    fix = "name a PEM file with certificates"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise WitnessSettingsError("audit.witness_ca", f"{file} cannot be read", fix) from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise WitnessSettingsError("audit.witness_ca", f"{file} holds no certificate", fix)
    return text


def _url_fault(url: str) -> str | None:
    if not url:
        return "has no URL"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "has a URL that is none"
    if parts.scheme not in ("https", "http") or not host or parts.username or parts.query or parts.fragment:
        return "has a URL that is none"
    if parts.scheme == "http" and not is_loopback(host):
        return "has a URL without TLS"
    return None
