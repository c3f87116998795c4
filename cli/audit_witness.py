"""`orgate audit witness`: run a witness of audit logs on a machine of your own; see which ones a gateway has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from msgspec import Struct

from cli.audit_evidence import read_key
from cli.audit_log import path
from cli.command import command
from cli.errors import RefusedError, UsageError
from cli.examples import examples
from cli.output import Column, Format, instant, printable
from cli.profiles import config_folder
from cli.session import Session

if TYPE_CHECKING:
    from gateway.witness.folder import WitnessFolder

T = TypeVar("T")

app = typer.Typer(
    help="Witnesses: who else has seen that the log only grows. Run one, or see a gateway's.",
    epilog=examples(
        "orgate audit witness serve --name witness.example/audit --log acme.key",
        "orgate audit witness key",
        "orgate audit witness status",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        envvar="ORGATE_WITNESS_FOLDER",
        metavar="DIR",
        help="What the witness keeps; else 'witness' in the configuration folder.",
        show_default=False,
    ),
]
LATE_S = 60
LOG_HELP = "A log's key, name+id+base64, or a file that holds it."


class WitnessedLog(Struct, frozen=True):
    """A log that this witness serves. `at`: Unix seconds of its last cosignature, 0 before the first."""

    origin: str
    size: int
    at: int
    refused: int
    keys: list[str]


LOGS = [
    Column("ORIGIN", "origin"),
    Column("SIZE", "size"),
    Column("COSIGNED", "at", lambda at: instant(at) if at else "never"),
    Column("REFUSED", "refused"),
]


class GatewayWitness(Struct, frozen=True):
    """What a witness has made of an organization's log, as its gateway knows."""

    name: str
    key: str
    size: int
    at: int
    fault: str
    fault_at: int


class Witnessing(Struct, frozen=True):
    """How an organization's log stands with the witnesses of its gateway."""

    quorum: str
    size: int
    witnessed_size: int
    late_s: float
    said: str
    items: list[GatewayWitness]


WITNESSES = [
    Column("WITNESS", "name"),
    Column("SIZE", "size"),
    Column("COSIGNED", "at", lambda at: instant(at) if at else "never"),
    Column("FAULT", "fault"),
    Column("SINCE", "fault_at", lambda at: instant(at) if at else ""),
]


@command(
    app,
    examples(
        "orgate audit witness serve --name witness.example/audit --log acme.key",
        "orgate audit witness serve --listen 0.0.0.0:8446 --tls-cert witness.pem --tls-key witness.key",
    ),
)
def serve(
    session: Session,
    *,
    folder: FolderOption = None,
    name: Annotated[
        str,
        typer.Option(
            help="At the first start: what the witness is called, a host and path of yours.", metavar="NAME"
        ),
    ] = "",
    log: Annotated[
        list[str] | None,
        typer.Option("--log", help=f"Serve this log, too. {LOG_HELP} May be repeated.", metavar="KEY"),
    ] = None,
    listen: Annotated[str, typer.Option(help="Address and port.", metavar="HOST:PORT")] = "127.0.0.1:8446",
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.", metavar="FILE")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM, PKCS#8.", metavar="FILE")] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Without TLS also beyond loopback: something in front has it.")
    ] = False,
) -> None:
    """Run a witness until it is told to stop.

    It cosigns a checkpoint of a log that it serves when the log's key signed it and a proof shows that it only
    adds to what was cosigned before. It needs no gateway, no account and no database: one folder, one address.
    """
    from gateway.witness.serve import Address, ListenError
    from gateway.witness.serve import serve as run

    host, port = _address(listen)
    where = _place(folder)
    keys = [read_key(one) for one in log or []]
    address = Address(host, port, tls_cert, tls_key, plain_http)

    def opened() -> WitnessFolder:
        kept = _opened(where, name, session)
        for one in keys:
            kept.add(one)
        return kept

    try:
        _folder(lambda: run(opened, address))
    except ListenError as error:
        raise UsageError(str(error), error.fix) from None


@command(app, examples("orgate audit witness key", "orgate audit witness key --folder /srv/witness > witness.key"))
def key(session: Session, *, folder: FolderOption = None) -> None:
    """Print the key that verifies this witness's cosignatures: for the policy of a gateway, or of an auditor."""
    session.out.line(str(_folder(lambda: _read(_place(folder)).key)))


@command(
    app, examples("orgate audit witness add acme.key", "orgate audit witness add 'gateway.example/audit/acme+…'")
)
def add(
    session: Session,
    log: Annotated[str, typer.Argument(help=LOG_HELP, metavar="KEY")],
    *,
    folder: FolderOption = None,
) -> None:
    """Serve another log; also while the witness runs. A log that changes its key has two for a time."""
    given = read_key(log)
    added = _folder(lambda: _read(_place(folder)).add(given))
    session.out.say(f"{given.name} {'is served now' if added else 'was served already'}")


@command(app, examples("orgate audit witness remove gateway.example/audit/acme"))
def remove(
    session: Session,
    origin: Annotated[str, typer.Argument(help="The log's origin.", metavar="ORIGIN")],
    *,
    folder: FolderOption = None,
) -> None:
    """Serve a log no more; also while the witness runs. What it has cosigned stays known, should it come back."""
    if not _folder(lambda: _read(_place(folder)).remove(origin)):
        raise RefusedError(f"{printable(origin)} is not served", "see `orgate audit witness list`")
    session.out.say(f"{origin} is no longer served")


@command(app, examples("orgate audit witness list", "orgate audit witness list --output json"), name="list")
def list_(session: Session, *, folder: FolderOption = None) -> None:
    """Show the logs that this witness serves, and what it has seen of each.

    REFUSED counts checkpoints that a log has signed and that did not follow what was known: they are kept, and
    whoever trusts the log wants to see them.
    """

    def read() -> list[WitnessedLog]:
        kept = _read(_place(folder))
        return [
            WitnessedLog(
                one.origin,
                one.known.head.size if one.known else 0,
                one.known.at if one.known else 0,
                len(kept.refused(one.origin)),
                list(map(str, one.keys)),
            )
            for one in kept.logs()
        ]

    session.out.items(_folder(read), LOGS, empty="no logs yet: `orgate audit witness add KEY`")


@command(app, examples("orgate audit witness status", "orgate audit witness status --output json"))
def status(session: Session) -> None:
    """Show the witnesses of a gateway: what each has seen of the organization's log, and its last fault.

    Exit code 1 when the newest checkpoint has not had its quorum for a minute.
    """
    found = session.client.read(path(session, "witnesses"), what="the witnesses").decode(Witnessing)
    if session.out.form is not Format.TABLE:
        session.out.item(found)
    else:
        session.out.items(found.items, WITNESSES)
        session.out.say(f"newest checkpoint: {found.size} entries; {printable(found.said)}")
    if found.late_s >= LATE_S:
        raise RefusedError(
            f"for {found.late_s:.0f} s no new checkpoint has had its quorum of witnesses",
            "see the faults; until then what is exported ends at the last checkpoint that had it",
        )


@command(app, examples("orgate audit witness policy > policy", "orgate audit export pack --witnesses policy"))
def policy(session: Session) -> None:
    """Print the policy that a gateway's witnesses have to meet for the organization's log (C2SP tlog-policy).

    An auditor compares the keys in it with those that the witnesses' owners gave them.
    """
    text = session.client.read(path(session, "policy"), what="the policy").body.decode()
    session.out.line(text.rstrip("\n"))


def _place(given: Path | None) -> Path:
    return (given or config_folder() / "witness").expanduser()


def _read(folder: Path) -> WitnessFolder:
    from gateway.witness.folder import WitnessFolder

    return WitnessFolder(folder)


def _opened(folder: Path, name: str, session: Session) -> WitnessFolder:
    """The folder; a new one when there is none and `name` was given."""
    from gateway.witness.folder import FolderError, make

    made = bool(name) and not (folder / "key").exists()
    if made:
        make(folder, name)
    elif not (folder / "key").exists():
        raise FolderError(
            f"{folder}: there is no witness in this folder", "give --name for a new one, or --folder"
        )
    kept = _read(folder)
    if name and kept.name != name:
        raise FolderError(
            f"{folder}: this witness is called {kept.name}", "leave out --name, or name another folder"
        )
    if made:
        session.out.say(f"made a witness in {folder}; its key is")
        session.out.say(str(kept.key))
    return kept


def _folder(call: Callable[[], T]) -> T:
    """What is wrong with files becomes words and what to do."""
    from gateway.witness.folder import FolderError

    try:
        return call()
    except FolderError as error:
        raise RefusedError(str(error), error.fix) from None
    except OSError as error:
        fix = "is there room, and may you write?"
        raise RefusedError(f"{error.filename or 'the folder'}: {error.strerror}", fix) from None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else 0
    if not colon or not bare or not 0 < number < 65_536:
        raise UsageError(f"--listen {text!r} is no address and port", "write 127.0.0.1:8446 or [::1]:8446")
    return bare, number
