"""The pages a person sees: plain HTML, one style sheet within, no script.

Every value goes through `html.escape`; the policy of `HEADERS` would stop what slipped through anyway.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from gateway.oauth.clients import Client, Plane

_FOLDER: Final = files(__package__)
_STYLE: Final = _FOLDER.joinpath("page.css").read_text(encoding="utf-8")
_LAYOUT: Final = Template(_FOLDER.joinpath("page.html").read_text(encoding="utf-8"))
_DEVICE: Final = Template(_FOLDER.joinpath("device.html").read_text(encoding="utf-8"))
_AUTHORIZE: Final = Template(_FOLDER.joinpath("authorize.html").read_text(encoding="utf-8"))
_CONSENT: Final = Template(_FOLDER.joinpath("consent.html").read_text(encoding="utf-8"))
_INVITATION: Final = Template(_FOLDER.joinpath("invitation.html").read_text(encoding="utf-8"))
_STYLE_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode()


def headers(*targets: str, script: str = "") -> dict[str, str]:
    """`targets`: origins that a form's answer may lead to, beside our own. `script`: the SHA-256 of the one script
    that the page may run, base64."""
    allowed = " ".join(("'self'", *targets))
    runs = f"script-src 'sha256-{script}'; " if script else ""
    return {
        "cache-control": "no-store",
        "content-security-policy": (
            f"default-src 'none'; {runs}style-src 'sha256-{_STYLE_HASH}'; form-action {allowed}; "
            "frame-ancestors 'none'; base-uri 'none'"
        ),
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "content-language": "en",
    }


HEADERS: Final[Mapping[str, str]] = headers()


def device_page(csrf: str, form: Mapping[str, str], error: str = "") -> str:
    """The verification page (RFC 8628 section 3.3), with what was typed before except the password."""
    values = {name: escape(form.get(name, "")) for name in ("user_code", "org", "email")}
    return layout("Sign in a device", _DEVICE.substitute(values, csrf=escape(csrf), error=alert(error)), error)


def consent_page(
    csrf: str,
    hidden: Mapping[str, str],
    *,
    path: str,
    title: str,
    client: str,
    who: tuple[str, str],
    what: str,
    more: str,
    yes: str,
) -> str:
    """What somebody who has signed in is asked. `who`: e-mail and organization; `more`: the code that their device
    shows; `hidden` comes back with the form."""
    email, org = who
    shows = f" and your\ndevice shows exactly this code: <strong>{escape(more)}</strong>" if more else "."
    body = _CONSENT.substitute(
        csrf=escape(csrf),
        hidden=hidden_fields(hidden),
        path=escape(path),
        title=escape(title),
        client=escape(client),
        email=escape(email),
        org=escape(org),
        what=escape(what),
        more=shows,
        yes=escape(yes),
    )
    return layout(title, body)


def invitation_page(csrf: str, form: Mapping[str, str], error: str = "") -> str:
    values = {name: escape(form.get(name, "")) for name in ("org", "email", "code")}
    body = _INVITATION.substitute(values, csrf=escape(csrf), error=alert(error))
    return layout("Accept an invitation", body, error)


_PLANES: Final[Mapping[Plane, str]] = {
    Plane.DATA: "to ask your organization's models",
    Plane.ADMIN: "to use the admin API with your roles",
}


def may(client: Client) -> str:
    """What somebody who lets `client` in allows, in their words: whichever plane it asks for first, its refresh
    token leads to all of its planes."""
    return ", and ".join(_PLANES[plane] for plane in client.planes)


def capital(name: str) -> str:
    return name[0].upper() + name[1:]


def authorize_page(
    csrf: str, form: Mapping[str, str], hidden: Mapping[str, str], *, client: Client, error: str = ""
) -> str:
    """The sign-in page of an authorization request. `hidden`: the request itself, to come back with the form."""
    values = {name: escape(form.get(name, "")) for name in ("org", "email")}
    body = _AUTHORIZE.substitute(
        values,
        csrf=escape(csrf),
        hidden=hidden_fields(hidden),
        client=escape(capital(client.name)),
        what=escape(may(client)),
        error=alert(error),
    )
    return layout("Sign in", body, error)


def failure_page(title: str, text: str) -> str:
    return layout(title, f"<h1>{escape(title)}</h1>\n{alert(text)}", text)


def done_page(title: str, text: str) -> str:
    return layout(title, f'<h1>{escape(title)}</h1>\n<p role="status">{escape(text)}</p>')


def hidden_fields(fields: Mapping[str, str]) -> str:
    return "\n".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items()
    )


def layout(title: str, body: str, error: str = "") -> str:
    # A screen reader says the title first: it should say at once that something went wrong.
    shown = f"Error: {title}" if error else title
    return _LAYOUT.substitute(title=escape(shown), style=_STYLE, body=body)


def alert(error: str) -> str:
    if not error:
        return ""
    return f'<p class="error" id="error" role="alert">{escape(error[0].upper() + error[1:])}.</p>'
