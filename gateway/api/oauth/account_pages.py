"""The account page: what a member has to sign in with, and what is signed in as them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from msgspec import Struct

from gateway.api.oauth import pages
from gateway.oauth.account import Visit
from gateway.oauth.factors_store import MAX_FACTORS, Factor, FactorKind
from gateway.oauth.sessions import LoginSession
from gateway.oauth.signin import FEDERATED

_FOLDER: Final = files(__package__)
_PAGE: Final = Template(_FOLDER.joinpath("account.html").read_text(encoding="utf-8"))
_SIGN_IN: Final = Template(_FOLDER.joinpath("account_sign_in.html").read_text(encoding="utf-8"))
_PASSWORD: Final = Template(_FOLDER.joinpath("account_password.html").read_text(encoding="utf-8"))
_KINDS: Final[Mapping[FactorKind, str]] = {
    FactorKind.TOTP: "authenticator app",
    FactorKind.PASSKEY: "passkey",
}


class Shown(Struct, frozen=True):
    """What the page shows. `clients`: the names of programs by their id."""

    visit: Visit
    factors: Sequence[Factor]
    codes_left: int
    sessions: Sequence[LoginSession]
    clients: Mapping[str, str]
    has_password: bool


def sign_in_page(csrf: str, path: str, form: Mapping[str, str], error: str = "") -> str:
    values = {name: escape(form.get(name, "")) for name in ("org", "email")}
    body = _SIGN_IN.substitute(values, csrf=escape(csrf), path=escape(path), error=pages.alert(error))
    return pages.layout("Your account", body, error)


def account_page(csrf: str, path: str, shown: Shown, *, said: str = "", error: str = "") -> str:
    """`path`: where its forms go. `said`: what was just done."""
    member = shown.visit.who.member
    values = {"csrf": escape(csrf), "path": escape(path), "email": escape(member.email)}
    body = _PAGE.substitute(
        values,
        org=escape(member.org),
        factors=_factors(values, shown),
        sessions=_sessions(values, shown),
        password=_PASSWORD.substitute(values) if shown.has_password else "",
        said=f'<p role="status">{escape(said)}</p>' if said else "",
        error=pages.alert(error),
    )
    return pages.layout("Your account", body, error)


def _factors(values: Mapping[str, str], shown: Shown) -> str:
    if FEDERATED in shown.visit.who.amr:
        return "<p>You sign in with your organization's identity provider, which asks for them.</p>"
    lines = []
    for factor in shown.factors:
        used = f"last used {_when(factor.used_at)}" if factor.used_at else "never used"
        text = f"<strong>{escape(factor.name)}</strong>, {_KINDS[factor.kind]}, {used}"
        button = _button(values, "remove", "Remove", f"Remove {factor.name}", ("factor", factor.id))
        lines.append(f"<li>{text}{button}</li>")
    listed = _list(lines) if lines else "<p>You have none.</p>"
    more = _button(values, "add", "Add a factor") if len(lines) < MAX_FACTORS else ""
    if not lines:
        return listed + more
    left = f"<p>{shown.codes_left} recovery codes are left.</p>"
    return listed + more + left + _button(values, "codes", "Make new recovery codes")


def _sessions(values: Mapping[str, str], shown: Shown) -> str:
    lines = []
    for one in shown.sessions:
        name = shown.clients.get(one.client, one.client)
        text = f"<strong>{escape(pages.capital(name))}</strong>, since {_when(one.created_at)}"
        if one.id == shown.visit.session:
            lines.append(f"<li>{text}, this one</li>")
            continue
        what = f"End the session of {name} since {_instant(one.created_at)}"
        lines.append(f"<li>{text}{_button(values, 'end', 'End', what, ('session', one.id))}</li>")
    return _list(lines)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(('<ul class="things">', *lines, "</ul>"))


def _button(
    values: Mapping[str, str], action: str, text: str, spoken: str = "", field: tuple[str, str] | None = None
) -> str:
    """A form of one button. `spoken`: what a screen reader says, where the text alone would not tell which."""
    kept = f'<input type="hidden" name="{field[0]}" value="{escape(field[1])}">' if field else ""
    label = f' aria-label="{escape(spoken)}"' if spoken else ""
    return (
        f'<form method="post" action="{values["path"]}">'
        f'<input type="hidden" name="csrf_token" value="{values["csrf"]}">{kept}'
        f'<button name="action" value="{action}"{label}>{escape(text)}</button></form>'
    )


def _when(at: int) -> str:
    text = _instant(at)
    return f'<time datetime="{text.replace(" ", "T").replace("TUTC", "Z")}">{text}</time>'


def _instant(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
