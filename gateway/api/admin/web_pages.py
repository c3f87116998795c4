"""The web pages' HTML. Whole without JavaScript; what a script adds is in `assets/`.

Every value goes through `html.escape`. The policy of `HEADERS` would stop what slipped through: no script but our
files runs, nothing is loaded from elsewhere, nobody frames the pages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Final
from urllib.parse import urlencode

from gateway.api.admin.audit import OUTCOMES
from gateway.api.admin.web_find import PAGE, Filter, Found

_FOLDER: Final = files(__package__).joinpath("assets")

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "require-trusted-types-for 'script'; trusted-types orgate"
    ),
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-language": "en",
}
ASSETS: Final[Mapping[str, str]] = {
    "web.css": "text/css",
    "audit.mjs": "text/javascript",
    "pack.mjs": "text/javascript",
    "judge.mjs": "text/javascript",
}
"""What the pages load: file and media type."""
VERIFIER: Final = tuple(
    sorted(
        file.name
        for file in _FOLDER.joinpath("verifier").iterdir()
        if file.name.endswith(".mjs") and not file.name.endswith("-cli.mjs")
    )
)
"""The second verifier's own files, as `docs/verify` has them: `verifier` leads there."""


def asset(name: str) -> bytes:
    return _FOLDER.joinpath(name).read_bytes()


def _template(name: str) -> Template:
    return Template(asset(name).decode())


_LAYOUT: Final = _template("layout.html")
_NOTICE: Final = _template("notice.html")
_AUDIT: Final = _template("audit.html")
_SCRIPT: Final = '<script type="module" src="/web/audit.mjs"></script>'


def notice(title: str, text: str, *, action: str = "", wrong: bool = False) -> str:
    """A page that says one thing. `action`: HTML, from `link` or `sign_out_form`."""
    role = ' class="error" role="alert"' if wrong else ""
    body = _NOTICE.substitute(title=escape(title), text=escape(text), role=role, action=action)
    return _page(f"Error: {title}" if wrong else title, body)


def link(to: str, text: str) -> str:
    return f'<p><a href="{escape(to)}">{escape(text)}</a></p>'


def sign_out_form(token: str) -> str:
    return (
        '<form method="post" action="/sign-out">'
        f'<input type="hidden" name="token" value="{escape(token)}"><button>Sign out</button></form>'
    )


def audit_page(*, org: str, who: str, token: str, wanted: Filter, found: Found) -> str:
    here = f"/orgs/{org}/audit"
    body = _AUDIT.substitute(
        who=escape(f"Signed in as {who}"),
        token=escape(token),
        org=escape(org),
        here=escape(here),
        size=found.size,
        first=found.first,
        faults="".join(
            f'<p class="error" role="alert">{escape(_LABELS[name])} {escape(what)}.</p>'
            for name, what in wanted.faults
        ),
        fields="\n".join(_field(name, wanted) for name in _LABELS),
        stretch=escape(_stretch(wanted, found)),
        pages=_pages(here, wanted, found, "above"),
        again=_pages(here, wanted, found, "below"),
        rows="\n".join(_row(entry) for entry in found.items) or _NO_ROWS,
    )
    return _page(f"Audit log of {org}", body, _SCRIPT)


_LABELS: Final = {
    "since": "From (UTC)",
    "until": "Before (UTC)",
    "actor": "Actor",
    "action": "Action",
    "outcome": "Outcome",
    "model": "Model",
    "client": "Client",
    "after": "From entry",
}
_NO_ROWS: Final = '<tr><td colspan="7">No entry here matches.</td></tr>'


def _field(name: str, wanted: Filter) -> str:
    label = f'<label for="{name}">{escape(_LABELS[name])}</label>'
    value = getattr(wanted, name)
    if name == "outcome":
        options = "".join(
            f'<option value="{one}"{" selected" if one == value else ""}>{one or "any"}</option>'
            for one in ("", *OUTCOMES)
        )
        return f'<div>{label}<select id="{name}" name="{name}">{options}</select></div>'
    if name in {"since", "until"}:
        kind = 'type="datetime-local"'
    elif name == "after":
        kind, value = 'inputmode="numeric" maxlength="16"', "" if value is None else str(value)
    else:
        kind = 'maxlength="128" autocapitalize="none" spellcheck="false"'
    shown = escape(_local(value) if name in {"since", "until"} else value)
    return f'<div>{label}<input id="{name}" name="{name}" value="{shown}" autocomplete="off" {kind}></div>'


def _local(text: str) -> str:
    """A time as `datetime-local` takes it, in UTC; whatever else was given reads as an empty field."""
    try:
        found = datetime.fromtimestamp(int(text), UTC) if text.isdecimal() else datetime.fromisoformat(text)
        found = found if found.tzinfo is None else found.astimezone(UTC)  # of the year 1 or 9999: there is no such
    except (ValueError, OverflowError, OSError):
        return ""
    return found.strftime("%Y-%m-%dT%H:%M")


def _stretch(wanted: Filter, found: Found) -> str:
    if not found.size:
        return "The log has no entry yet."
    if found.first:
        return f"Entries before {found.first} are past their retention. {_looked(wanted, found)}"
    return _looked(wanted, found)


def _looked(wanted: Filter, found: Found) -> str:
    if not wanted.any:
        return f"Entries from {found.start} on, {len(found.items)} of {found.size}, the oldest first."
    many = "1 matches" if len(found.items) == 1 else f"{len(found.items)} match"
    looked = f"Of the entries {found.start} to {max(found.next - 1, found.start)}, {many}; the oldest first."
    return (
        f"{looked} There are more entries to look through."
        if found.more
        else f"{looked} That is the end of the log."
    )


def _pages(here: str, wanted: Filter, found: Found, where: str) -> str:
    places: list[tuple[str, int]] = []
    if found.start > found.first:
        places.append(("First", found.first))
        if not wanted.any:
            places.append(("Older", max(found.start - PAGE, found.first)))
    if found.more:
        places.append(("Newer", found.next) if not wanted.any else ("Look on", found.next))
        if not wanted.any:
            places.append(("Newest", max(found.size - PAGE, 0)))
    items = "".join(
        f'<li><a href="{escape(f"{here}?{urlencode(wanted.query(after=at))}")}">{text}</a></li>'
        for text, at in places
    )
    return f'<nav aria-label="Pages, {where}"><ul>{items}</ul></nav>' if items else ""


def _row(entry: Mapping[str, object]) -> str:
    index = escape(_text(entry.get("index", "")))
    cells = "".join(f"<td>{escape(_text(entry.get(name, '')))}</td>" for name in _COLUMNS)
    fields = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(_text(value))}</dd>" for name, value in sorted(entry.items())
    )
    what = f'{index}<span class="unseen">, all of this entry</span>'
    details = f"<details><summary>{what}</summary><dl>{fields}</dl></details>"
    return f'<tr id="entry-{index}"><td>{details}</td><td>{_time(entry.get("@timestamp"))}</td>{cells}</tr>'


_COLUMNS: Final[Sequence[str]] = ("actor", "action", "target", "model", "outcome")


def _time(stamp: object) -> str:
    if not isinstance(stamp, int):
        return ""
    try:
        at = datetime.fromtimestamp(stamp / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return escape(str(stamp))
    return f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at:%Y-%m-%d %H:%M:%S}</time>'


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _page(title: str, body: str, script: str = "") -> str:
    return _LAYOUT.substitute(title=escape(title), body=body, script=script)
