"""The files that the settings of witnesses name: their policy, and who vouches for their certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.audit.policy import NOBODY, Policies, Policy, PolicyError, parse_policy
from gateway.loopback import is_loopback
from gateway.settings import Settings
from tenants.ids import InvalidIdError, org_id

KEY: Final = "audit.witness_policy"
SUFFIX: Final = ".policy"
DEFAULT: Final = "_default"
"""No organization can be called so."""


class WitnessSettingsError(Exception):
    """A file that `[audit]` names for witnesses cannot be used: `key`, what is wrong with it, what to do."""

    def __init__(self, key: str, wrong: str, fix: str) -> None:
        super().__init__(f"{key}: {wrong}; {fix}")
        self.message, self.fix = f"{key}: {wrong}", fix


def read_policies(settings: Settings) -> Policies:
    """Whom to ask. The setting is a file, for all logs, or a folder with `<organization>.policy` for some and
    perhaps `_default.policy` for the rest. Raises `WitnessSettingsError`."""
    if not settings.audit.witness_policy:
        return Policies()
    place = settings.home / settings.audit.witness_policy
    if not place.is_dir():
        return Policies(others=_read_policy(place))
    own: dict[str, Policy] = {}
    for file in sorted(place.glob(f"*{SUFFIX}")):
        name = file.name.removesuffix(SUFFIX)
        if name != DEFAULT and not _is_org_id(name):
            fix = "call it as the organization, or _default.policy"
            raise WitnessSettingsError(KEY, f"{file} is the policy of no organization", fix)
        own[name] = _read_policy(file)
    if not own:
        raise WitnessSettingsError(
            KEY, f"{place} holds no policy", "write _default.policy, or acme.policy for acme"
        )
    return Policies({name: policy for name, policy in own.items() if name != DEFAULT}, own.get(DEFAULT, NOBODY))


def _read_policy(file: Path) -> Policy:
    try:
        policy = parse_policy(file.read_bytes())
    except OSError as error:
        fix = "write it, or leave the setting out"
        raise WitnessSettingsError(KEY, f"{file} cannot be read ({error.strerror})", fix) from None
    except PolicyError as error:
        fix = "mend that line" if error.line else "mend it"
        raise WitnessSettingsError(KEY, f"{file}: {error}", fix) from None
    if policy.logs:
        fix = "remove its log lines: the gateway asks for its own logs"
        raise WitnessSettingsError(KEY, f"{file} lists a log", fix)
    if not policy.witnesses:
        raise WitnessSettingsError(KEY, f"{file} names no witness", "add one, or leave the file out")
    for witness in policy.witnesses:
        if (wrong := _url_fault(witness.url)) is not None:
            fix = "write https://host, or http:// on loopback, behind its key"
            raise WitnessSettingsError(KEY, f"{file}: witness {witness.name} {wrong}", fix)
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


def _is_org_id(text: str) -> bool:
    try:
        org_id(text)
    except InvalidIdError:
        return False
    return True


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
