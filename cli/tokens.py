"""A fresh access token for one profile, whoever else is asking for one at the same time."""

from __future__ import annotations

import random
from collections.abc import Callable

from cli.credentials import AccessToken, CredentialStore, Login
from cli.errors import NotAllowedError
from cli.oauth import AuthorizationServer, OAuthError, Tokens
from cli.proof import HEADER, ProofKey

RENEW_BEFORE_S = 120
"""A token with less left than this, plus up to a minute of spread, is renewed."""


class TokenSource:
    """Access tokens of one profile and one audience, cached in its login."""

    def __init__(
        self,
        profile: str,
        audience: str,
        *,
        credentials: CredentialStore,
        server: Callable[[], AuthorizationServer],
        now: Callable[[], float],
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._profile = profile
        self._audience = audience
        self._credentials = credentials
        self._server = server
        self._now = now
        # Editors on many machines that signed in at nine must not all renew in the same second.
        self._margin = RENEW_BEFORE_S + spread() * 60

    def token(self, *, refused: str = "") -> str:
        """A token that is not `refused` and good for two minutes or more. Raises `NotAllowedError`."""
        if (held := self._cached(refused)) is not None:
            return held
        with self._credentials.lock(self._profile):
            # Another process may have renewed it while this one waited for the lock.
            if (held := self._cached(refused)) is not None:
                return held
            return self._renew()

    def renewed(self) -> str:
        """A token other than the one at hand, which may have been taken back (a role lost, a suspension lifted).

        Of processes that ask at once, one renews it and all get the same.
        """
        held = self._login().access.get(self._audience)
        return self.token(refused=held.token if held is not None else "")

    @property
    def bound(self) -> bool:
        """Whether a token alone opens nothing: it comes with a proof."""
        return bool(self._login().key)

    def shown(self, token: str, method: str, url: str) -> dict[str, str]:
        """The header fields with which a request carries `token`."""
        key = key_of(self._login())
        if key is None:
            return {"authorization": f"Bearer {token}"}
        return {"authorization": f"DPoP {token}", HEADER: key.proof(method, url, token=token)}

    def _cached(self, refused: str) -> str | None:
        held = self._login().access.get(self._audience)
        if held is None or held.token == refused or held.expires_at - self._now() <= self._margin:
            return None
        return held.token

    def _renew(self) -> str:
        login = self._login()
        try:
            fresh = self._server().refresh(login.refresh_token, self._audience, key_of(login))
        except OAuthError as error:
            if error.error == "invalid_grant":
                # The family is dead: asking again would only be counted as another misuse.
                self._credentials.forget(self._profile)
                raise NotAllowedError(f"this sign-in has ended: {error.message}", "run `orgate login`") from None
            raise
        # A crash between the server's answer and this write leaves the consumed refresh token here; within the
        # server's grace (10 s) the next run gets the same successor, after it the person signs in again.
        self._credentials.save(self._profile, remember(login, fresh, self._audience, self._now()))
        return fresh.access_token

    def _login(self) -> Login:
        login = self._credentials.load(self._profile)
        if login is None:
            raise not_signed_in(self._profile)
        return login


def not_signed_in(profile: str) -> NotAllowedError:
    """The error of every command that needs a login where there is none."""
    return NotAllowedError(f"not signed in (profile '{profile}')", "run `orgate login`")


def remember(login: Login, fresh: Tokens, audience: str, now: float) -> Login:
    """`login` with what the server just gave; access tokens that have ended are dropped."""
    kept = {aud: held for aud, held in login.access.items() if held.expires_at > now}
    kept[audience] = AccessToken(fresh.access_token, int(now) + fresh.expires_in)
    return Login(fresh.refresh_token or login.refresh_token, login.org, kept, login.key)


def key_of(login: Login) -> ProofKey | None:
    """What the login's tokens are bound to."""
    return ProofKey(login.key) if login.key else None
