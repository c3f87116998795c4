"""What `orgate audit persons` and `orgate audit erase` do: who is behind the pseudonyms of an audit log, and how
one of them is taken out of it for good."""

from __future__ import annotations

from msgspec import Struct

from cli.errors import NotFoundError, RefusedError, UsageError
from cli.output import Column, Format, instant, printable
from cli.session import Session
from tenants.ids import InvalidIdError, member_id

PAGE = 500
COLUMNS = [Column("PERSON", "person"), Column("MEMBER", "member")]


class Person(Struct, frozen=True):
    """Who a pseudonym stands for. `key` proves it: HMAC-SHA-256 under it of organization, newline, member."""

    person: str
    member: str
    key: str


class People(Struct, frozen=True):
    """A page of them; `next` is where to go on, '' at the end."""

    items: list[Person]
    next: str


class Erased(Struct, frozen=True):
    """`person`: the pseudonym that nobody is behind any more; '' when that was so before. `held_until`: Unix
    seconds until when the list of revocations says their id; 0: it does not."""

    person: str
    held_until: int


def show_people(session: Session) -> None:
    found: list[Person] = []
    after = ""
    while True:
        asked: dict[str, str | int] = {"after": after, "limit": PAGE}
        answer = session.client.read(_path(session, "persons"), what="the people in the log", params=asked)
        page = answer.decode(People)
        found += page.items
        after = page.next
        if not after:
            break
    session.out.items(found, COLUMNS, empty="nobody is in the log yet")


def erase_person(session: Session, person: str, *, yes: bool) -> None:
    """Raises `RefusedError` for who is a member still: before anything is asked or sent."""
    try:
        key = member_id(person)
    except InvalidIdError as error:
        raise UsageError(f"--person {printable(person)}: {error}", "`orgate audit persons` lists them") from None
    _refuse_members(session, key)
    session.confirm(f"Erase {key} from the audit log of '{session.org}'? Nobody can undo it.", yes=yes)
    answer = session.client.write("POST", _path(session, f"persons/{key}/erase"), what=f"person '{key}'")
    if answer is None:
        return
    erased = answer.decode(Erased)
    session.out.say("erased" if erased.person else "they had been erased before; nothing of them was left")
    if session.out.form is Format.TABLE:
        session.out.line(erased.person)
    else:
        session.out.item(erased)
    if erased.held_until:
        session.out.say(
            f"a token of theirs may live until {instant(erased.held_until)}; until then their id is among the"
            " revocations, and goes by itself"
        )


def _refuse_members(session: Session, key: str) -> None:
    path = f"/admin/v1/orgs/{session.org}/members/{key}"
    try:
        session.client.read(path, what=f"member '{key}'")
    except NotFoundError:
        return
    raise RefusedError(
        f"{key} is a member of '{session.org}' still", f"delete them first: `orgate member delete {key}`"
    )


def _path(session: Session, rest: str) -> str:
    return f"/admin/v1/orgs/{session.org}/audit/{rest}"
