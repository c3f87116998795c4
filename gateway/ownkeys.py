"""The platform's own keys at the start of the control process: from where they lie to where they are used.

Without Vault they come from the sealed file at once. With Transit they have to be unwrapped first, and a Vault
that is sealed or away is waited for: to start without them is to make others, and every session would end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec import Struct

from gateway.audit.signer import KEY_NAME, Signer, load_signer
from gateway.clock import Clock
from gateway.oauth.remote_signing import RemoteSigningKeys
from gateway.oauth.service import HMAC_NAME
from gateway.oauth.signing import KEYS_NAME, SigningKeys
from gateway.oauth.tokens import TokenSigner
from gateway.secret import Secret
from gateway.secrets.datakeys import WRAPPING_NAME, load_wrapping_key
from gateway.secrets.envelope import BareSecrets, EnvelopeSecrets, WrappingError
from gateway.secrets.store import StoreUnavailableError, SystemSecrets
from gateway.settings import Settings

NAMES: Final = (KEYS_NAME, HMAC_NAME, KEY_NAME, WRAPPING_NAME)
"""All of the platform's own secrets."""
RETRY_S: Final = 2.0

log = logging.getLogger("orgate")


class Unlocked(Struct, frozen=True):
    """What signs access tokens, what signs checkpoints, and what wraps the organizations' data keys."""

    signing: TokenSigner
    signer: Signer
    wrapping: Secret


class OwnKeys:
    """Made in the control process only. `sealed` is the file that they lie in."""

    def __init__(self, settings: Settings, sealed: SystemSecrets, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._remote: RemoteSigningKeys | None = None
        self._transit = None
        self.secrets: SystemSecrets = BareSecrets(sealed)
        if "transit" not in (settings.secrets.system, settings.secrets.signing):
            return
        # hvac and requests take 0.3 s of CPU to import, and 19 MB: only who uses them pays for them.
        from gateway.secrets.transit import Transit  # noqa: PLC0415

        self._transit = Transit(settings.vault, settings.home, sealed, lambda: clock.monotonic_us() / 1e6)
        if settings.secrets.system == "transit":
            self.secrets = EnvelopeSecrets(sealed, self._transit)

    async def unlock(self, stop: asyncio.Event, on_wait: Callable[[], None]) -> Unlocked | None:
        """Wait until all of them are here; None: `stop` came first. `on_wait` is called once, if it takes waiting.

        Raises `StoreUnavailableError` for what waiting does not mend: a sealed file that does not open, an
        envelope that was tampered with.
        """
        said = ""
        while not stop.is_set():
            try:
                unlocked = await self._load()
            except WrappingError as error:
                if not said:
                    on_wait()
                if str(error) != said:
                    said = str(error)
                    log.error(  # noqa: TRY400  # the message is all there is to say
                        "the signing keys and the audit log's key wait for Vault's Transit: %s. Until it answers"
                        " nobody can sign in, renew or use the admin API, and audit entries wait in the workers'"
                        " spools. Tried again every %.0f s",
                        error,
                        RETRY_S,
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S):
                        await stop.wait()
            else:
                if said:
                    log.info("Vault's Transit answers: the platform's keys are here")
                return unlocked
        return None

    def upkeep(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run beside the servers, for ever."""
        work = []
        if isinstance(self.secrets, EnvelopeSecrets):
            work.append(self.secrets.keep_wrapped())
        if self._remote is not None:
            work.append(self._remote.follow())
        return work

    async def aclose(self) -> None:
        if self._transit is not None:
            await self._transit.aclose()

    async def _load(self) -> Unlocked:
        for name in NAMES:
            await self.secrets.load(name)
        signing: TokenSigner
        if self._settings.secrets.signing == "transit" and self._transit is not None:
            try:
                self._remote = signing = await RemoteSigningKeys.open(self._transit, self._clock.now)
            except StoreUnavailableError as error:
                raise WrappingError(str(error)) from None
        else:
            signing = await SigningKeys.load_or_create(self.secrets, self._clock.now)
        host = self._settings.server.url.removeprefix("https://")
        wrapping = await load_wrapping_key(self.secrets)
        return Unlocked(signing, await load_signer(host, self.secrets), wrapping)
