"""`orgate init`, `serve`, `doctor`: the server on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.command import command
from cli.errors import RefusedError, UsageError
from cli.examples import examples
from cli.output import Column, Format
from cli.profiles import config_folder
from cli.session import Session
from tenants.ids import PLATFORM

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

SETTINGS_FILE = "orgate.toml"
SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        envvar="ORGATE_SETTINGS",
        metavar="FILE",
        help="Else ./orgate.toml, else the one in the configuration folder.",
        show_default=False,
    ),
]


def server_folder() -> Path:
    """Where `orgate init` puts a server when nobody says where."""
    return config_folder() / "server"


def settings_file(given: Path | None) -> Path:
    """`--settings` or ORGATE_SETTINGS, else ./orgate.toml, else the one that `init` writes by default."""
    if given is not None:
        return given
    here = Path(SETTINGS_FILE)
    return here if here.exists() else server_folder() / SETTINGS_FILE


@command(
    app,
    examples(
        "orgate init --operator-email ops@gateway.example --org acme --owner-email ann@acme.example",
        "orgate init --home /srv/orgate --host gateway.example --operator-email ops@gateway.example \\",
        "    --org acme --owner-email ann@acme.example",
    ),
)
def init(
    session: Session,
    *,
    operator_email: Annotated[str, typer.Option(help="The first platform operator.", metavar="ADDRESS")],
    owner_email: Annotated[
        str, typer.Option(help="The first owner of the organization --org.", metavar="ADDRESS")
    ],
    home: Annotated[
        Path | None, typer.Option(help="Folder for all of it.", metavar="DIR", show_default=False)
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name or address of the server; may be repeated.", metavar="HOST", show_default=False
        ),
    ] = None,
    public_port: Annotated[int, typer.Option(help="Completions and sign-in.", min=1, max=65535)] = 8443,
    admin_port: Annotated[int, typer.Option(help="Administration.", min=1, max=65535)] = 8444,
    force: Annotated[bool, typer.Option("--force", help="Also where a settings file is already.")] = False,
) -> None:
    """Write a first settings file, keys, certificate, operator and owner."""
    if not session.options.org:
        raise UsageError("the first organization needs an id", "add `--org ORG`")
    org = session.org
    if org == PLATFORM:
        raise UsageError(
            f"'{org}' is the operators' own organization", "name your first customer or team with `--org`"
        )
    if public_port == admin_port:
        raise UsageError("both ports are the same", "give --admin-port another number")
    for option, address in (("--operator-email", operator_email), ("--owner-email", owner_email)):
        if address.count("@") != 1 or address.startswith("@") or address.endswith("@"):
            raise UsageError(f"{option} {address!r} is no e-mail address")
    from gateway.install import AlreadyInitializedError, initialize
    from tenants.store import StoreError

    folder = (home or server_folder()).resolve()
    try:
        made = initialize(
            folder,
            operator_email=operator_email,
            org=org,
            owner_email=owner_email,
            hosts=host or ["127.0.0.1", "localhost"],
            public_port=public_port,
            admin_port=admin_port,
            force=force,
        )
    except AlreadyInitializedError as error:
        raise RefusedError(str(error)) from None
    except (StoreError, ValueError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise RefusedError(
            f"{error.filename or folder}: {error.strerror}", "name a folder of your own, empty or new, with --home"
        ) from None
    if session.out.form is not Format.TABLE:
        session.out.item(
            {name: str(getattr(made, name)) for name in PATHS} | {"people": list(map(_person, made.people))}
        )
        return
    for name, meaning in PATHS.items():
        session.out.say(f"wrote {getattr(made, name)}  ({meaning})")
    session.out.items(
        [_person(person) for person in made.people],
        [Column(name.upper().replace("_", " "), name) for name in ("org", "email", "role", "invitation")],
    )
    url = f"https://{(host or ['127.0.0.1'])[0]}:{public_port}"
    session.out.say("\nnext:")
    session.out.say(f"  orgate doctor --settings {made.settings}")
    session.out.say(f"  orgate serve --settings {made.settings}")
    for person in made.people:
        profile = "" if person.org == org else f" --profile {person.org}"
        session.out.say(
            f"  orgate login{profile} --server {url} --ca {made.ca} --org {person.org} --email {person.email} \\\n"
            "      --invitation CODE"
        )


PATHS = {
    "settings": "read it through",
    "ca": "give it to everybody who signs in",
    "certificate": "of the server",
    "key": "keep it here",
    "master_key": "keep a copy elsewhere: without it no upstream key can be read",
}


def _person(person: object) -> dict[str, str]:
    return {name: str(getattr(person, name)) for name in ("org", "email", "role", "invitation")}


@app.command(
    epilog=examples(
        "orgate serve", "orgate serve --settings /srv/orgate/orgate.toml", "ORGATE_SERVER__WORKERS=4 orgate serve"
    )
)
def serve(settings: SettingsOption = None) -> None:
    """Run the gateway until it is told to stop (SIGTERM or Ctrl-C); streams in flight may end first."""
    from gateway.serve import AlreadyServingError, CannotServeError, run
    from gateway.settings import SettingsError

    file = settings_file(settings)
    try:
        code = run(file)
    except SettingsError as error:
        raise UsageError(str(error), f"mend {file}, then `orgate doctor --settings {file}`") from None
    except AlreadyServingError as error:
        raise RefusedError(str(error), "stop that one first") from None
    except CannotServeError as error:
        raise RefusedError(str(error), error.fix) from None
    except KeyboardInterrupt:
        return
    raise typer.Exit(code)


@command(app, examples("orgate doctor", "orgate doctor --settings /srv/orgate/orgate.toml --output json"))
def doctor(session: Session, settings: SettingsOption = None) -> None:
    """Check an installation: files, certificate, ports, stores, disk, server. Exit code 1 if any fails."""
    from cli.doctor import FAILED, examine

    file = settings_file(settings)
    found = examine(file)
    session.out.items(
        found,
        [
            Column("CHECK", "check"),
            Column("RESULT", "result"),
            Column("SEEN", "seen"),
            Column("WHAT TO DO", "fix"),
        ],
    )
    failed = [finding for finding in found if finding.result == FAILED]
    if failed:
        raise RefusedError(f"{len(failed)} of {len(found)} checks failed ({file})")
    session.out.say(f"all {len(found)} checks passed ({os.fspath(file)})")
