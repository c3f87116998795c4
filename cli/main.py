"""The entry of `orgate`. It imports typer and nothing else: a group's file is read when its command runs."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.command import ORG, OUTPUT, PROFILE, VERBOSE
from cli.examples import examples

COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("cli.demo", "", "Start a gateway with everything embedded and a demo model."),
    "init": ("cli.serve", "init", "Write a first settings file, keys, certificate, operator and owner."),
    "serve": ("cli.serve", "serve", "Run the gateway until it is told to stop."),
    "doctor": ("cli.serve", "doctor", "Check an installation: files, certificate, ports, stores, disk, server."),
    "status": ("cli.status", "status", "Show the server's version and its workers."),
    "login": ("cli.login", "login", "Sign in and keep the login in a profile."),
    "logout": ("cli.login", "logout", "End the login on the server and forget it here."),
    "whoami": ("cli.login", "whoami", "Show who is signed in, where, with which roles."),
    "token": ("cli.login", "token", "Print a fresh access token, for an editor or a script."),
    "org": ("cli.org", "", "Organizations."),
    "member": ("cli.member", "", "Members of an organization, their roles and invitations."),
    "team": ("cli.team", "", "Teams of an organization: what a limit of scope team counts together."),
    "client": ("cli.registry", "", "Programs of the organization's own that ask for tokens: OAuth clients."),
    "service": ("cli.service", "", "Service accounts: programs that ask in their own name, as CI does."),
    "personal-token": ("cli.personal", "", "Static keys for tools that can hold nothing else."),
    "session": ("cli.sessions", "", "Sessions: which programs are signed in, since when, until when."),
    "idp": ("cli.idp", "", "Single sign-on: the organization's own identity provider."),
    "scim": ("cli.scim", "", "Provisioning by SCIM 2.0: members and teams from a directory."),
    "upstream": ("cli.upstream", "", "Model servers an organization may use."),
    "key": ("cli.key", "", "Keys of upstreams: set, replaced, rotated on schedule, never shown."),
    "model": ("cli.model", "", "Model names that callers use, and what they lead to."),
    "limit": ("cli.limit", "", "Limits and budgets of requests, tokens, bytes, money and concurrency."),
    "price": ("cli.price", "", "What models cost, for limits of spend."),
    "policy": ("cli.policy", "", "Rules that say who may use which model for what."),
    "audit": ("cli.audit", "", "The audit log: follow, query, export, verify, prove."),
    "store": ("cli.store", "", "The control store in PostgreSQL: its tables, and the way there."),
}
"""Command → (module, the command's name in that module's `app` or '' for the whole group, help)."""


class LazyCommands(MutableMapping[str, Any]):
    """The commands by name; a module is imported when its command is looked up."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._names = [
            name for name, (module, *_) in COMMANDS.items() if module != "cli.demo" or find_spec(module)
        ]

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = _load(name)
        return self._made[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._made[name] = value

    def __delitem__(self, name: str) -> None:
        self._names.remove(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


class LazyGroup(TyperGroup):
    """The root: lists its commands from the table above, without importing them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands()

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.commands])


def _load(name: str) -> Any:
    module, command, _ = COMMANDS[name]
    if name == "demo":
        return _demo(importlib.import_module(module).demo)
    group = typer.main.get_group(importlib.import_module(module).app)
    if command:
        return group.commands[command]
    group.name = name
    return group


def _demo(function: Any) -> Any:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command("demo", epilog=examples("orgate demo", "orgate demo --keep"))(function)
    return typer.main.get_group(app).commands["demo"]


# Help is plain text: typer's framed one imports for 60 ms more, and breaks lines that people copy.
app = typer.Typer(
    cls=LazyGroup, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True
)


def _version(wanted: bool) -> None:
    if wanted:
        from gateway.version import VERSION

        typer.echo(f"orgate {VERSION}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "orgate demo",
        "orgate login --server https://gateway.example:8443 --ca ca.pem",
        "orgate model list --output json",
    )
)
def root(
    org: Annotated[str | None, ORG] = None,
    profile: Annotated[str | None, PROFILE] = None,
    output: Annotated[str | None, OUTPUT] = None,
    verbose: Annotated[bool, VERBOSE] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """The gateway between your editors and the models that complete your code.

    Exit codes: 0 done, 1 the server or a check said no, 2 wrong usage, 3 not signed in or not allowed,
    4 the server cannot be reached, 130 interrupted and can be gone on with.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. What a person did wrong never ends in a traceback."""
    from cli.errors import CliError, ExitCode

    try:
        _only_text(sys.argv[1:] if argv is None else argv)
        outcome = typer.main.get_command(app)(args=argv, prog_name="orgate", standalone_mode=True)
    except CliError as error:
        _say(f"orgate: {error.message}")
        if error.fix:
            _say(f"  → {error.fix}")
        return int(error.code)
    except UnicodeError as error:  # a folder's name, what was typed in, or what a terminal has no letters for
        _say(
            f"orgate: something that was read or is to be shown is no text in {error.encoding.upper()}"
            if isinstance(error, UnicodeEncodeError | UnicodeDecodeError)
            else f"orgate: no text: {error}"
        )
        return int(ExitCode.USAGE)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _say(f"orgate: {error.filename or 'the output'} cannot be written: {error.strerror}")
        # What is left of it must not be tried again when the interpreter ends, which would have a code of its own.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return int(ExitCode.REFUSED)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ExitCode.REFUSED)
    return outcome if isinstance(outcome, int) else int(ExitCode.DONE)


def _only_text(argv: Sequence[str]) -> None:
    """Refuse bytes that are no UTF-8 (surrogates, PEP 383): nothing here has such a name, and no request could say
    it. They are not repeated: they may be a secret."""
    from cli.errors import UsageError

    given = [(f"argument {place}", text) for place, text in enumerate(argv, 1)]
    given += [(name, text) for name, text in os.environ.items() if name.startswith("ORGATE_")]
    for where, text in given:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{where} is no text in UTF-8") from None


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def _say(text: str) -> None:
    from cli.output import harmless  # what a message quotes may be somebody else's

    sys.stderr.write(harmless(text) + "\n")


if __name__ == "__main__":
    sys.exit(main())
