"""An organization's identity provider as its admins see it: set with its client secret, tried, taken away.

The secret lies in the sealed file beside what it was given for. One that was given for another issuer or client is
never sent: whoever may change where sign-ins go does not get the secret by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from gateway.oauth.provider import Issuer, Metadata, ProviderError, Providers
from gateway.oauth.provider_jwt import ALGORITHMS
from gateway.oauth.sso import callback_of
from gateway.oauth.sso_identity import refused_code, refused_words, token_question
from gateway.secret import Secret
from gateway.secrets.store import IdpSecrets, NoSuchSecretError, StoreUnavailableError
from tenants.idp import IdentityProvider
from tenants.ids import OrgId
from tenants.store import Actor, ControlStore, NotFoundError

_TRIED: Final = frozenset({"invalid_grant", "invalid_request"})
"""What a token endpoint says to a code that is none, once it knows who asks."""


class _Kept(Struct, frozen=True):
    issuer: str
    client_id: str
    secret: str


class IdpStep(Struct, frozen=True):
    """One thing that was tried. `ok` None: it cannot be told from here, or is worth a look."""

    what: str
    ok: bool | None
    detail: str


class IdpTest(Struct, frozen=True):
    """`ok`: nothing that was tried is wrong."""

    ok: bool
    redirect_uri: str
    steps: tuple[IdpStep, ...]


class IdentityProviders:
    """One change at a time for the whole process: seldom, and quick. `base`: of the gateway's own URLs."""

    def __init__(self, control: ControlStore, secrets: IdpSecrets, providers: Providers, base: str) -> None:
        self._control = control
        self._secrets = secrets
        self._providers = providers
        self._base = base.rstrip("/")
        self._turn = asyncio.Lock()

    def redirect_uri(self, org: OrgId) -> str:
        return callback_of(self._base, org)

    async def get(self, org: OrgId) -> IdentityProvider | None:
        return await self._control.for_org(org).idp.get()

    async def has_secret(self, provider: IdentityProvider) -> bool:
        """Raises `gateway.secrets.store.StoreUnavailableError`."""
        kept = await self._kept(provider.org)
        return kept is not None and _is_for(kept, provider)

    async def put(self, item: IdentityProvider, expected: int, by: Actor) -> IdentityProvider:
        """Set it, as `IdentityProviderBook.put`. A secret that was given for another issuer or client is not used
        for this one."""
        async with self._turn:
            made = await self._control.for_org(item.org).idp.put(item, expected, by)
            self._providers.forget(_issuer(made))
        return made

    async def put_secret(self, org: OrgId, secret: Secret, by: Actor) -> None:
        """What is shown to the provider as it is set now; an empty one makes a public client. Raises
        `NotFoundError` where there is no provider.

        A crash between the two writes leaves a secret that is in use, and no entry of it: whoever set it has no
        answer, and sets it again.
        """
        async with self._turn:
            provider = await self.get(org)
            if provider is None:
                raise NotFoundError("no identity provider")
            if secret.reveal():
                kept = _Kept(provider.issuer, provider.client_id, secret.reveal().decode())
                await self._secrets.put(org, Secret(msgspec.json.encode(kept)))
            else:
                await self.forget(org)
            detail = {"public": not secret.reveal()}
            await self._control.for_org(org).note("idp.secret", org, by, detail)

    async def delete(self, org: OrgId, expected: int, by: Actor) -> None:
        """Raises what `IdentityProviderBook.delete` does."""
        async with self._turn:
            await self._control.for_org(org).idp.delete(expected, by)
            await self.forget(org)

    async def forget(self, org: OrgId) -> None:
        """The secret of an organization that is gone, or has no provider any more."""
        try:
            await self._secrets.delete(org)
        except NoSuchSecretError:
            return

    async def secret(self, provider: IdentityProvider) -> Secret | None:
        """`gateway.oauth.sso.Secrets`."""
        try:
            kept = await self._kept(provider.org)
        except StoreUnavailableError:
            raise ProviderError("its client secret cannot be read now") from None
        if kept is None:
            return None
        if not _is_for(kept, provider):
            raise ProviderError("its client secret was given for another issuer or client id: set it again")
        return Secret(kept.secret)

    async def test(self, org: OrgId) -> IdpTest:
        """Try what can be tried without a person. Raises `NotFoundError` where there is none."""
        provider = await self.get(org)
        if provider is None:
            raise NotFoundError("no identity provider")
        issuer = _issuer(provider)
        self._providers.forget(issuer)
        steps: list[IdpStep] = []
        try:
            metadata = await self._providers.metadata(issuer)
            steps.append(IdpStep("discovery document", True, "read; it names this issuer"))
            steps += _judged(metadata, provider)
            keys = await self._providers.keys(issuer)
            steps.append(IdpStep("keys", True, f"{len(keys)} that verify signatures"))
            steps.append(await self._try_credential(provider, metadata))
        except ProviderError as error:
            steps.append(IdpStep("provider", False, str(error)))
        return IdpTest(all(step.ok is not False for step in steps), self.redirect_uri(org), tuple(steps))

    async def _try_credential(self, provider: IdentityProvider, metadata: Metadata) -> IdpStep:
        """Ask for a token with a code that is none: who may not ask hears of that first (RFC 6749 section 5.2)."""
        what = "client credential"
        secret = await self.secret(provider)
        form = {
            "grant_type": "authorization_code",
            "code": "orgate-idp-test",
            "redirect_uri": self.redirect_uri(provider.org),
            "code_verifier": "orgate-idp-test" * 3,
        }
        answer = await self._providers.ask(token_question(provider, metadata, secret, form))
        code = refused_code(answer)
        if code in _TRIED:
            known = "the client id" if secret is None else "the client id and secret"
            return IdpStep(what, True, f"the token endpoint knows {known}, and refuses a code that is none")
        if answer.status == 401 or code in ("invalid_client", "unauthorized_client"):
            detail = refused_words(code or "invalid_client")
            return IdpStep(what, False, f"{detail}: look at the client id and set the secret again")
        return IdpStep(what, None, f"the token endpoint answered status {answer.status} to a code that is none")

    async def _kept(self, org: OrgId) -> _Kept | None:
        try:
            found = await self._secrets.get(org)
        except NoSuchSecretError:
            return None
        return msgspec.json.decode(found.reveal(), type=_Kept)


def _judged(metadata: Metadata, provider: IdentityProvider) -> list[IdpStep]:
    steps = []
    for name, url in (
        ("authorization_endpoint", metadata.authorization_endpoint),
        ("token_endpoint", metadata.token_endpoint),
    ):
        steps.append(IdpStep(name, bool(url), url or "the discovery document names none"))
    judge: tuple[tuple[str, tuple[str, ...], Callable[[str], bool], str], ...] = (
        ("response type", metadata.response_types, lambda one: one == "code", "code"),
        ("PKCE", metadata.challenge_methods, lambda one: one == "S256", "S256"),
        ("signatures", metadata.algorithms, lambda one: one in ALGORITHMS, "a signature with a public key"),
    )
    for what, said, good, wanted in judge:
        found = [one for one in said if good(one)]
        if found:
            steps.append(IdpStep(what, True, ", ".join(found[:8])))
        elif not said:
            steps.append(IdpStep(what, None, f"the discovery document does not say; {wanted} is used"))
        else:
            hard = what != "PKCE"  # one that does not know it passes it over (RFC 6749 section 3.1)
            steps.append(IdpStep(what, False if hard else None, f"{wanted} is not among what it says it does"))
    if missing := [scope for scope in provider.scopes if metadata.scopes and scope not in metadata.scopes]:
        steps.append(IdpStep("scopes", None, f"not among those it says it knows: {', '.join(missing)}"))
    return steps


def _is_for(kept: _Kept, provider: IdentityProvider) -> bool:
    return (kept.issuer, kept.client_id) == (provider.issuer, provider.client_id)


def _issuer(provider: IdentityProvider) -> Issuer:
    return Issuer(provider.org, provider.issuer, provider.ca_pem)
