"""The pages of second factors. Usable without a script, but for passkeys, which are a script's to ask for."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from msgspec import Struct

from gateway.api.oauth import pages
from gateway.oauth import totp
from gateway.oauth.factors import Challenge, Offer
from tenants.models import Member

_FOLDER: Final = files(__package__)
_SCRIPT: Final = _FOLDER.joinpath("passkey.js").read_text(encoding="utf-8")
_FACTOR: Final = Template(_FOLDER.joinpath("factor.html").read_text(encoding="utf-8"))
_ENROL: Final = Template(_FOLDER.joinpath("enrol.html").read_text(encoding="utf-8"))
_CODES: Final = Template(_FOLDER.joinpath("codes.html").read_text(encoding="utf-8"))
_PASSKEY: Final = Template(_FOLDER.joinpath("passkey.html").read_text(encoding="utf-8"))
SCRIPT_HASH: Final = b64encode(sha256(_SCRIPT.encode()).digest()).decode()
"""Of the one script there is, for the pages' policy."""

_NAME: Final = """<label for="passkey_name">Name</label>
<p class="hint" id="passkey_hint">Your own word for it, such as “Laptop”.</p>
<input id="passkey_name" name="name" maxlength="60" autocomplete="off" aria-describedby="passkey_hint">"""

DEMANDED: Final = (
    "Your organization demands a second factor of you, and you have none yet. Add one to go on; you will need it "
    "whenever you sign in."
)
ANOTHER: Final = "You will need one of your factors, this one or another, whenever you sign in."


class Sent(Struct, frozen=True):
    """What every form of a page sends, and where to."""

    csrf: str
    path: str
    hidden: Mapping[str, str]

    def values(self) -> dict[str, str]:
        """For a template, as HTML."""
        return {
            "csrf": escape(self.csrf),
            "path": escape(self.path),
            "hidden": pages.hidden_fields(self.hidden),
        }


def factor_page(sent: Sent, member: Member, challenge: Challenge, error: str = "") -> str:
    """What somebody who has second factors is asked for."""
    if challenge.codes:
        label, hint = "Code", "From your authenticator app, or one of your recovery codes."
    else:
        label, hint = "Recovery code", "One of those that you kept when you added your passkey."
    body = _FACTOR.substitute(
        **sent.values(),
        email=escape(member.email),
        org=escape(member.org),
        label=label,
        hint=hint,
        error=pages.alert(error),
        passkey=_passkey(sent, challenge.options, action="factor", button="Use a passkey", heading="", name=""),
    )
    return pages.layout("Second factor", body + _script(challenge.options), error)


def enrol_page(
    sent: Sent,
    offer: Offer,
    *,
    title: str,
    why: str,
    action: str,
    back: str = "",
    error: str = "",
) -> str:
    """On which somebody adds one. `action`: of its forms; `back`: where a link leads that adds none."""
    body = _ENROL.substitute(
        **sent.values(),
        title=escape(title),
        why=escape(why),
        action=escape(action),
        picture=totp.picture(offer.uri),
        secret=escape(" ".join(offer.secret[at : at + 4] for at in range(0, len(offer.secret), 4))),
        more=f'<a href="{escape(back)}">Cancel</a>' if back else "",
        error=pages.alert(error),
        passkey=_passkey(
            sent,
            offer.options,
            action=action,
            button="Add a passkey",
            heading="<h2>Passkey</h2>\n<p>This device, a phone or a security key, unlocked by you.</p>",
            name=_NAME,
        ),
    )
    return pages.layout(title, body + _script(offer.options), error)


def codes_page(sent: Sent, codes: Sequence[str]) -> str:
    """Recovery codes, this once."""
    body = _CODES.substitute(
        **sent.values(),
        codes="\n".join(f"<li><code>{escape(code)}</code></li>" for code in codes),
    )
    return pages.layout("Recovery codes", body)


def _passkey(
    sent: Sent,
    options: str,
    *,
    action: str,
    button: str,
    heading: str,
    name: str,
) -> str:
    if not options:
        return ""
    return _PASSKEY.substitute(
        **sent.values(),
        options=escape(options),
        action=escape(action),
        button=escape(button),
        heading=heading,
        name=name,
        without="Passkeys need JavaScript, and a browser that knows them; the rest of this page does not.",
    )


def _script(options: str) -> str:
    return f"<script>{_SCRIPT}</script>" if options else ""
