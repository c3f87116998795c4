"""What every command begins with: its options, the profile, the printer, and the client that suits them."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from cli.client import AdminClient, Client
from cli.credentials import CredentialStore
from cli.dryrun import DryRunClient
from cli.errors import RefusedError, UsageError
from cli.oauth import AuthorizationServer
from cli.output import Format, Printer
from cli.profiles import Profile, ProfileStore, config_folder
from cli.resources import Resource, T
from cli.tokens import TokenSource, not_signed_in
from tenants.ids import InvalidIdError, org_id

if TYPE_CHECKING:
    from cli.connection import Connection


class Options(Struct, frozen=True):
    """The options that every command takes."""

    org: str = ""
    profile: str = ""
    output: str = Format.TABLE
    dry_run: bool = False
    verbose: bool = False


class Session:
    """One command's run. What costs something (TLS, files) is made when first asked for."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.out = Printer(Format(options.output))
        self.folder = config_folder()
        self.profiles = ProfileStore(self.folder)
        self.credentials = CredentialStore(self.folder)
        self._connections: dict[str, Connection] = {}
        self._loaded: tuple[str, Profile] | None = None
        self._client: Client | None = None
        self._dry: DryRunClient | None = None

    @property
    def profile_name(self) -> str:
        return self._profile()[0]

    @property
    def profile(self) -> Profile:
        return self._profile()[1]

    @property
    def org(self) -> str:
        """`--org`, else the profile's, else the one that signed in."""
        chosen = self.options.org or self.profile.org
        if not chosen:
            login = self.credentials.load(self.profile_name)
            if login is None:
                raise not_signed_in(self.profile_name)
            chosen = login.org
        if not chosen:
            raise UsageError("which organization?", "add `--org ORG`, or `orgate login --org ORG` to keep it")
        try:
            return org_id(chosen)
        except InvalidIdError as error:
            raise UsageError(f"--org {chosen!r}: {error}") from None

    @property
    def client(self) -> Client:
        """The admin API; with `--dry-run`, the client that only tells."""
        if self._client is None:
            admin = AdminClient(self.connection(self.profile.admin), self.tokens("admin"))
            self._client = admin
            if self.options.dry_run:
                self._client = self._dry = DryRunClient(admin, admin.origin)
        return self._client

    def resource(self, collection: str, kind: type[T], noun: str) -> Resource[T]:
        """One collection of the organization, e.g. `("models", ModelAlias, "model")`."""
        return Resource(self.client, f"/admin/v1/orgs/{self.org}/{collection}", kind, noun, self.out)

    def connection(self, origin: str) -> Connection:
        if origin not in self._connections:
            from cli.connection import Connection  # httpx takes 100 ms to import; a cached token needs none

            self._connections[origin] = Connection(origin, ca=self.profile.ca, verbose=self.options.verbose)
        return self._connections[origin]

    def authorization_server(self) -> AuthorizationServer:
        return AuthorizationServer(self.connection(self.profile.server))

    def audience(self, plane: str) -> str:
        """`plane` is `v1` (completions) or `admin`."""
        return f"{self.profile.resource or self.profile.server}/{plane}"

    def tokens(self, plane: str) -> TokenSource:
        return TokenSource(
            self.profile_name,
            self.audience(plane),
            credentials=self.credentials,
            server=self.authorization_server,
            now=time.time,
        )

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before what cannot be taken back. Without a terminal, `--yes` must have said so."""
        if yes or self.options.dry_run:
            return
        if not sys.stdin.isatty():
            raise UsageError(f"{question} That needs a yes.", "add `--yes`")
        self.out.say(f"{question} [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise RefusedError("nothing was changed")

    def wrote(self, item: object, message: str) -> None:
        """Show what a write made. Nothing for None: a dry run tells its plan at the end."""
        if item is None:
            return
        self.out.say(message)
        self.out.item(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections.values():
            connection.close()
        if error is None and self._dry is not None:
            self._dry.tell(self.out)

    def _profile(self) -> tuple[str, Profile]:
        if self._loaded is None:
            self._loaded = self.profiles.load(self.options.profile)
        return self._loaded

    def use(self, name: str, profile: Profile) -> None:
        """Go on with `profile` (a login that is being made); connections of before are closed."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._loaded = name, profile


def display_available() -> bool:
    """Whether a browser opened from here would be seen by the person who ran the command."""
    if sys.platform == "darwin" or os.name == "nt":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
