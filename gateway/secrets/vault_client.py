"""One conversation with Vault or OpenBao: bounded in time and size, never redirected, judged by its status.

hvac and requests block, follow redirects, wait 30 s and read proxies, certificates and tokens from the
environment and from `~/.vault-token`; all of that is turned off here. Everything in this module runs in a
thread. Nothing here holds a token longer than one call.
"""

from __future__ import annotations

import io
import ssl
import time
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final, TypeVar

import hvac
import requests
from hvac.adapters import JSONAdapter
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError

from gateway.secret import Secret
from gateway.secrets.store import StoreUnavailableError
from gateway.vault_settings import ORG, VaultSettings
from tenants.ids import OrgId

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer: a key has 8 KiB at most, and its metadata's versions a few more."""

T = TypeVar("T")

_MEANING: Final = {
    400: "refuses the request",
    403: "denies permission",
    404: "has nothing there",
    429: "is a standby, or limits the rate",
    472: "is a disaster-recovery secondary",
    473: "is a performance standby",
    474: "is a standby that has lost its active node",
    501: "is not initialized",
    503: "is sealed or down",
    530: "has been removed from its cluster",
}
"""Vault's HTTP API, "HTTP status codes" and "/sys/health"."""


class VaultAnswerError(StoreUnavailableError):
    """An answer that is not a success. `status` as it came.

    `absent`: the server says that nothing is at that path. A 404 with words is something else: an engine or a
    namespace that is not there, or no Vault at all. Says where and what, never what was sent: Vault's own words
    name paths, not values.
    """

    def __init__(self, address: str, status: int, body: object = None) -> None:
        if 300 <= status < 400:
            meaning = "redirects to another server, which is not followed: name the active node or a load balancer"
        elif status < 300:
            meaning = "does not answer as Vault does"
        else:
            meaning = _MEANING.get(status, "fails")
        self.status = status
        match body:
            case {"errors": list(errors)}:
                words = [" ".join(error.split())[:200] for error in errors[:3] if isinstance(error, str)]
                self.absent = status == 404 and not errors
            case _:  # a version that was deleted or destroyed is a 404 with its metadata
                words = []
                self.absent = status == 404 and isinstance(body, dict) and isinstance(body.get("data"), dict)
        said = "; ".join(word for word in words if word.isprintable())
        detail = f"{status}: {said}" if said else str(status)
        super().__init__(f"the server at {address} {meaning} ({detail})")


class _TooMuchError(requests.RequestException):
    """The answer is longer than any this gateway needs, or takes longer than it may."""


class _Bounded(HTTPAdapter):
    """Reads the whole answer at once, within `MAX_ANSWER` bytes and the call's time."""

    def __init__(self, connections: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        super().__init__(pool_connections=1, pool_maxsize=connections)

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        end = time.monotonic() + self._timeout_s
        response = super().send(*args, **{**kwargs, "stream": True})
        whole = bytearray()
        late = False
        try:
            while piece := response.raw.read1(MAX_ANSWER, decode_content=True):
                whole += piece
                late = time.monotonic() > end
                if late or len(whole) > MAX_ANSWER:
                    raise _TooMuchError("too slow" if late else "too long")
        except ReadTimeoutError:
            response.close()
            raise requests.ReadTimeout("too slow") from None
        except HTTPError:
            response.close()
            raise requests.ConnectionError("broke off") from None
        except _TooMuchError:
            response.close()
            raise
        response.raw = io.BytesIO(whole)
        return response


class _Judging(JSONAdapter):  # type: ignore[misc]  # hvac has no types
    """Every answer that is not a success becomes a `VaultAnswerError`, before hvac puts its body in its own."""

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        answer = super().request(method, url, *args, **{**kwargs, "raise_exception": False})
        if isinstance(answer, dict) or (isinstance(answer, requests.Response) and answer.status_code == 204):
            return answer
        if not isinstance(answer, requests.Response):
            raise VaultAnswerError(self.base_uri, 200)
        try:
            body = answer.json()
        except (ValueError, RecursionError):
            body = None
        raise VaultAnswerError(self.base_uri, answer.status_code, body)


class VaultServer:
    """One server, asked from a few threads. The connections are shared by all organizations; tokens are not."""

    def __init__(self, vault: VaultSettings, home: Path, *, threads: int) -> None:
        """Raises `StoreUnavailableError` when `vault.ca` cannot be read. Connects to nothing yet."""
        self._vault = vault
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc from the environment between us and the keys
        self._session.headers = requests.structures.CaseInsensitiveDict(
            {"user-agent": "orgate", "accept-encoding": "identity"}
        )
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _Bounded(threads, vault.timeout_s))
        if vault.ca:
            path = home / vault.ca
            if not path.is_file():
                raise StoreUnavailableError(f"vault.ca: there is no file {path}")
            self._session.verify = str(path)

    @property
    def address(self) -> str:
        return self._vault.address

    def ask(self, org: OrgId | None, token: Secret | None, work: Callable[[Any], T]) -> T:
        """Call `work` with an `hvac.Client` that speaks in the namespace of `org`. Blocks.

        Raises `VaultAnswerError`, `StoreUnavailableError` when there was no answer.
        """
        fault: Exception
        try:
            return work(self._client(org, token))
        except StoreUnavailableError as error:
            fault = error
        except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            fault = self._unreachable(error)  # requests' own are OSErrors; the others are hvac's, of odd answers
        # Raised anew, out here: the frames and the chain of what was caught hold the token and the answer.
        raise fault.with_traceback(None)

    def close(self) -> None:
        self._session.close()

    def _client(self, org: OrgId | None, token: Secret | None) -> Any:
        return hvac.Client(
            url=self._vault.address,
            token=token.reveal().decode() if token is not None else "",  # None would look into the environment
            namespace=self._vault.namespace.replace(ORG, org or "") or None,
            timeout=self._vault.timeout_s,
            allow_redirects=False,
            session=self._session,
            cert=(),
            adapter=_Judging,
        )

    def _unreachable(self, error: Exception) -> StoreUnavailableError:
        where, limit = self._vault.address, self._vault.timeout_s
        match error:
            case requests.exceptions.SSLError() | ssl.SSLError():
                said = "its certificate is not trusted, or it speaks no TLS: look at vault.ca and vault.address"
            case requests.Timeout():
                said = f"no answer within {limit:g} s"
            case _TooMuchError():
                said = f"its answer is {error}: more than {MAX_ANSWER // 1024} KiB or {limit:g} s"
            case requests.ConnectionError():
                said = "no connection, or it broke off"
            case OSError():
                said = f"no connection ({type(error).__name__})"
            case _:
                said = "its answer cannot be understood"
        return StoreUnavailableError(f"the server at {where}: {said}")
