"""`orgate audit export`: the log as an evidence pack, or as a file that other programs read."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from msgspec import Struct, json

from cli.audit_log import Action, Actor, Client, Model, Outcome, Since, Until, bounds, is_ago, path, size_of
from cli.audit_part import Part, SpoiledError, State
from cli.audit_transfer import entries, leaves
from cli.command import command
from cli.errors import NOT_READABLE, CliError, InterruptedExportError, RefusedError, UsageError, unreadable
from cli.examples import examples
from cli.progress import progress
from cli.session import Session

PACK: Final = "pack"
PARQUET: Final = "parquet"
MODULES: Final = {
    "jsonl": "jsonl",
    "csv": "rfc4180",
    PARQUET: PARQUET,
    "ocsf": "ocsf",
    "cef": "cef",
    "syslog": "rfc5424",
}
"""Format → its module in `gateway.audit.formats`."""
FORMATS: Final = (PACK, *MODULES)
EXAMPLES: Final = examples(
    "orgate audit export acme-2026-01",
    "orgate audit export acme-2026-01 --resume",
    "orgate audit export refused --since 2026-01-01 --until 2026-02-01 --outcome refused",
    "orgate audit export january.csv --format csv --since 2026-01-01 --until 2026-02-01",
    "orgate audit export log.json --format ocsf --actor mem_0123456789abcdefghjk",
)


class Exported(Struct, frozen=True, omit_defaults=True):
    """`path`: the pack's folder, or the file; `sha256` is the file's, a pack has its manifest."""

    path: str
    org: str
    format: str
    entries: int
    sha256: str = ""


class _Asked(Struct, frozen=True):
    """What the person wants of the log. `ago`: the bounds that were told from now."""

    filter: dict[str, str | int]
    ago: frozenset[str]


def _known(text: str | None) -> str | None:
    """Refuse an unknown format where it is parsed, so that the usage is shown."""
    if text is not None and text not in FORMATS:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(FORMATS)}")
    return text


def register(app: typer.Typer) -> None:
    """Add `export` to the group."""
    command(app, EXAMPLES)(export)


def export(
    session: Session,
    target: Annotated[Path, typer.Argument(help="A folder to make (a pack), or a file.", metavar="PATH")],
    *,
    form: Annotated[
        str | None,
        typer.Option("--format", help="pack, jsonl, csv, parquet, ocsf, cef or syslog.", callback=_known),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with one that was cut off.")] = False,
    since: Since = None,
    until: Until = None,
    actor: Actor = None,
    action: Action = None,
    outcome: Outcome = None,
    model: Model = None,
    client: Client = None,
    witnesses: Annotated[
        Path | None,
        typer.Option(help="A witness policy (C2SP tlog-policy) for the pack; else the server's.", metavar="FILE"),
    ] = None,
    enterprise: Annotated[
        int | None,
        typer.Option(help="Private enterprise number for syslog's orgate@NUMBER.", min=1, max=2**32 - 1),
    ] = None,
) -> None:
    """Download the log, or the part of it that matches all filters, as it is at this moment.

    A pack is a folder that anybody can verify without the server: entries, hash tiles, signed checkpoint, key and
    a manifest. Every other format is one file, with its SHA-256 beside it in FILE.sha256; it cannot be verified.

    Nothing is written over. What was cut off is kept apart until --resume goes on with it: a pack without its
    manifest, a FILE.part. Exit code 130: interrupted.
    """
    given = {"action": action, "actor": actor, "outcome": outcome, "model": model, "client": client}
    ago = frozenset(name for name, text in (("since", since), ("until", until)) if text and is_ago(text))
    filters: dict[str, str | int] = {name: value for name, value in given.items() if value}
    asked = _Asked({**filters, **bounds(since, until, time.time())}, ago)
    target = target.expanduser()
    if not target.name or not target.name.isprintable() or "\\" in target.name:
        raise UsageError(f"{str(target)!r} is no name for an export")
    if form is None:
        form = None if resume and Part.unfinished(target) else PACK
    if form != PACK and witnesses is not None:
        raise UsageError("--witnesses is for a pack", "leave it out, or leave out --format")
    if form not in (None, "syslog") and enterprise is not None:
        raise UsageError("--enterprise is for syslog", "leave it out, or say --format syslog")
    if form == PACK:
        made = _pack(session, target, asked, resume=resume, witnesses=witnesses)
        session.wrote(made, f"next: `orgate audit verify {shlex.quote(str(target))}`")
    else:
        made = _file(session, target, form, asked, resume=resume, enterprise=enterprise)
        session.wrote(made, f"next: `sha256sum --check {shlex.quote(f'{target}.sha256')}`")


# -- a pack ---------------------------------------------------------------------------------------------------


def _pack(session: Session, target: Path, asked: _Asked, *, resume: bool, witnesses: Path | None) -> Exported:
    from gateway.audit.pack import PackError

    with _clear(target, kept=resume) as came:
        try:
            pack = _resumed(session, target, asked) if resume else _begun(session, target, asked, witnesses)
            try:
                with pack:
                    _fill(session, pack, came)
                    pack.finish(int(time.time()))
                    came.kept = True
            finally:
                if not came.kept:
                    shutil.rmtree(target)  # nothing has arrived: nothing to go on with
        except PackError as error:
            raise SpoiledError(str(error), f"remove {target}, and export again") from None
    return Exported(str(target), pack.plan.org, PACK, pack.count)


def _fill(session: Session, pack: Any, came: _Came) -> None:
    plan = pack.plan
    asked = {**plan.filter}
    if isinstance(asked.get("actor"), list):
        asked["actor"] = ",".join(asked["actor"])
    came.done = pack.count
    with progress("exporting", plan.end - plan.start) as bar:
        for lines in entries(session, pack.next_index, plan.end, asked):
            pack.write(b"".join(lines))
            came.done, came.kept = pack.count, True
            bar.advance(pack.next_index - plan.start)
    if not plan.whole:
        with progress("hashes", plan.size) as bar:
            for hashes in leaves(session, lambda: pack.leaves, plan.size):
                pack.write_leaves(hashes)
                came.kept = True
                bar.advance(pack.leaves)


def _begun(session: Session, target: Path, asked: _Asked, witnesses: Path | None) -> Any:
    from gateway.audit.pack import PackWriter, Plan

    policy = _asked_for(session) if witnesses is None else _policy(witnesses)
    if os.path.lexists(target):
        raise _exists(target)
    said = session.client.read(path(session, "checkpoint"), what="the checkpoint")
    for remark in said.remarks:
        session.out.say(remark)
    checkpoint, key = said.body.decode(), _text(session, "key")
    size = size_of(checkpoint)
    chosen: dict[str, object] = {**asked.filter}
    if "actor" in chosen:
        chosen["actor"] = _actors(session, str(chosen["actor"]))
    start = min(_kept(session).begin, size)
    return PackWriter(target, Plan(session.org, checkpoint, key, start, size, chosen, policy))


def _resumed(session: Session, target: Path, asked: _Asked) -> Any:
    from gateway.audit.pack import PackWriter

    if not PackWriter.unfinished(target):
        if target.is_file() or (target / "manifest.json").is_file():
            raise UsageError(f"{target} is there, and whole", "there is nothing to resume")
        raise UsageError(f"there is no pack in {target} that was cut off", "leave out `--resume`")
    _plain(target)
    pack = PackWriter.resume(target)
    try:
        before = {**pack.plan.filter}
        if "actor" in asked.filter and "actor" in before:
            names = _actors(session, str(asked.filter["actor"]))
            before["actor"] = asked.filter["actor"] if names == before["actor"] else ""
        _same(session, pack.plan.org, before, asked)
    except BaseException:
        pack.__exit__(None, None, None)
        raise
    return pack


def _plain(folder: Path) -> None:
    """Refuse a folder in which something leads elsewhere: it was not left so by an export."""
    found = [folder]
    for here, folders, files in os.walk(folder):
        found += [Path(here, name) for name in (*folders, *files)]
    for place in found:
        if place.is_symlink() or not (place.is_dir() or place.is_file()):
            raise SpoiledError(f"{place} is a link, or no file", "remove the folder, and export again")


def _actors(session: Session, actor: str) -> str | list[str]:
    """Who the lines say for `actor`: a manifest must not hold a member's id, which could not be erased from it."""

    class Actors(Struct, frozen=True):
        items: list[str]

    asked = {"actor": actor}
    names = session.client.read(path(session, "actors"), what="the actor", params=asked).decode(Actors).items
    if not names:
        raise RefusedError(
            f"nothing in the log of '{session.org}' is by {actor}, or they were erased",
            "look at `orgate audit persons`",
        )
    return names[0] if len(names) == 1 else names


def _asked_for(session: Session) -> str:
    """The operator's policy, where it names witnesses."""
    from gateway.audit.policy import PolicyError, parse_policy

    text = _text(session, "policy")
    try:
        return text if parse_policy(text).witnesses else ""
    except PolicyError as error:
        raise RefusedError(f"the server's policy of witnesses: {error}") from None


def _policy(file: Path) -> str:
    from gateway.audit.policy import PolicyError, parse_policy

    try:
        text = file.expanduser().read_text(encoding="utf-8")
        parse_policy(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--witnesses {file}: cannot be read: {error}") from None
    except PolicyError as error:
        raise UsageError(f"--witnesses {file}: {error}", "it is a policy as C2SP tlog-policy says") from None
    return text


# -- a file ---------------------------------------------------------------------------------------------------


def _file(
    session: Session, target: Path, form: str | None, asked: _Asked, *, resume: bool, enterprise: int | None
) -> Exported:
    from gateway.audit.formats.context import DOCUMENTATION, Context

    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is no folder", "make it first")
    with _clear(target, kept=resume) as came:
        if resume:
            part = Part.resume(target)
        else:
            module = _module(str(form))
            host = Context.host_of(_text(session, "key").partition("+")[0])
            number = enterprise or DOCUMENTATION
            kept = _kept(session)
            state = State(session.org, str(form), asked.filter, kept.size, host, number, next=kept.begin)
            part = Part.begin(target, state, getattr(module, "HEADER", b""))
        with part:
            state = part.state
            if form not in (None, state.format):
                raise UsageError(f"the export to {target} was begun as {state.format}", "leave out --format")
            _same(session, state.org, state.filter, asked)
            module = _module(state.format)
            ctx = Context(host=state.host, enterprise=state.enterprise)
            came.done = state.count
            try:
                with progress("exporting", state.end) as bar:
                    for lines in entries(session, state.next, state.end, state.filter):
                        following = _decoded(lines[-1])["index"] + 1
                        part.write(_records(module, state.format, lines, ctx), following, len(lines))
                        came.done, came.kept = part.state.count, True
                        bar.advance(following)
                digest = _parquet(part, ctx) if state.format == PARQUET else part.finish()
            except BaseException:
                if not came.kept:
                    part.drop()
                raise
    return Exported(str(target), session.org, state.format, part.state.count, digest)


def _module(form: str) -> Any:
    try:
        return import_module(f"gateway.audit.formats.{MODULES[form]}")
    except ImportError as error:
        raise RefusedError(
            f"{form} needs a library that is not installed: {error.name}",
            "`pip install arro3-core arro3-io`, or export another format",
        ) from None
    except KeyError:
        raise RefusedError(f"{form!r} is no format that this version writes") from None


def _records(module: Any, form: str, lines: list[bytes], ctx: Any) -> bytes:
    if form in ("jsonl", PARQUET):  # as they are stored; Parquet is made of them in the end
        return b"".join(lines)
    end = getattr(module, "EOL", b"\n")
    return b"".join(module.convert(_decoded(line), ctx=ctx) + end for line in lines)


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        found = json.decode(line)
    except NOT_READABLE as error:
        raise RefusedError(f"what the server sent is no entry: {unreadable(error)}") from None
    return found if isinstance(found, dict) else {}


def _parquet(part: Part, ctx: Any) -> str:
    """Make the file of the lines in the part. A crash in here leaves the part as it was: this is done again."""
    from gateway.audit.formats import parquet

    made = part.path.with_name(part.path.name + ".parquet")
    with progress("converting", part.state.count) as bar, part.path.open("rb") as source:

        def rows() -> Iterator[Mapping[str, object]]:
            for number, line in enumerate(source, 1):
                yield _decoded(line)
                if number % parquet.BATCH == 0:
                    bar.advance(number)

        made.unlink(missing_ok=True)
        try:
            with os.fdopen(
                os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
            ) as file:
                parquet.write(rows(), file, ctx=ctx)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            made.unlink(missing_ok=True)
            raise
    return part.finish(made)


# -- both -----------------------------------------------------------------------------------------------------


class _Kept(Struct, frozen=True):
    """Of the log, entries from `begin` on are there still; there are `size`, those before it counted."""

    begin: int
    size: int


def _kept(session: Session) -> _Kept:
    return session.client.read(path(session, "hold"), what="the log's range").decode(_Kept)


class _Came:
    """How many entries have arrived; `kept`: something is there that can be gone on with."""

    done = 0
    kept = False


@contextmanager
def _clear(target: Path, *, kept: bool) -> Iterator[_Came]:
    """Whatever ends an export says so in words, and how it is gone on with where something has arrived."""
    came = _Came()
    came.kept = kept
    again = f"orgate audit export {shlex.quote(str(target))} --resume"
    try:
        yield came
    except KeyboardInterrupt:
        raise InterruptedExportError(
            f"interrupted after {came.done} entries" if came.done else "interrupted",
            f"go on with `{again}`" if came.kept else "export again",
        ) from None
    except OSError as error:
        where, then = error.filename or target, f"go on with `{again}`" if came.kept else "export again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RefusedError(f"no room is left on the disk of {where}", f"free some, then {then}") from None
        raise RefusedError(f"{where}: {error.strerror or error}", f"may you write there? Then {then}") from None
    except CliError as error:
        if came.kept and not isinstance(error, UsageError | SpoiledError):
            error.fix = f"{error.fix + '; ' if error.fix else ''}go on with `{again}`"
        raise


def _same(session: Session, org: str, before: Mapping[str, object], asked: _Asked) -> None:
    """Filters that are said again with --resume have to be those that it was begun with."""
    if org != session.org:
        raise UsageError(f"this export was begun of '{org}', not of '{session.org}'", f"say `--org {org}`")
    for name, value in asked.filter.items():
        if name not in asked.ago and before.get(name) != value:
            raise UsageError(
                f"this export was begun without that --{name}", "leave the filters out: they are known"
            )


def _text(session: Session, rest: str) -> str:
    return session.client.read(path(session, rest), what=f"the log's {rest}").body.decode()


def _exists(target: Path) -> UsageError:
    from gateway.audit.pack import PackWriter

    if PackWriter.unfinished(target):
        return UsageError(
            f"{target} holds an export that was cut off", "go on with `--resume`, or remove the folder"
        )
    return UsageError(f"{target} exists; a pack is never written over", "name another folder")
