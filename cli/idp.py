"""`orgate idp`: where an organization's people sign in. One provider each, OpenID Connect."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from msgspec import Struct, structs

from cli.command import command
from cli.errors import RefusedError, UsageError
from cli.examples import examples
from cli.member import Who, member_id_of
from cli.output import Format
from cli.session import Session
from gateway.secret import Secret
from policies.facts import Role
from tenants.idp import Demand, GroupRole, GroupTeam, IdentityProvider, RequiredClaim
from tenants.ids import OrgId

app = typer.Typer(
    help="Single sign-on: the organization's own identity provider, over OpenID Connect.",
    epilog=examples(
        "orgate idp set --issuer https://id.example/realms/acme --client-id orgate --secret-from secret.txt",
        "orgate idp test",
        "orgate idp set --jit --domain acme.example --groups-claim groups --group-role 'orgate-admins=admin'",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

LONGEST: Final = 4_096
LARGEST: Final = 256 * 1024


class Facts(Struct, frozen=True):
    redirect_uri: str
    secret: bool
    provider: IdentityProvider | None


class Step(Struct, frozen=True):
    what: str
    ok: bool | None
    detail: str


class Tested(Struct, frozen=True):
    ok: bool
    redirect_uri: str
    steps: list[Step]


class _Secret(Struct, frozen=True):
    client_secret: Secret


def _path(session: Session, *rest: str) -> str:
    return "/".join([f"/admin/v1/orgs/{session.org}/idp", *rest])


@command(
    app,
    examples(
        "orgate idp set --issuer https://id.example/realms/acme --client-id orgate --secret-from secret.txt",
        "orgate idp set --jit --domain acme.example --default-role member",
        "orgate idp set --groups-claim groups --group-role 'orgate-admins=admin' --group-team 'search=search'",
        "orgate idp set --require-amr admin=mfa --require-amr owner=mfa",
        "orgate idp set --only --break-glass mem_0123456789abcdefghjk",
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    *,
    issuer: Annotated[str | None, typer.Option(help="The issuer, to the letter.", metavar="URL")] = None,
    client_id: Annotated[str | None, typer.Option(help="What the provider calls this gateway.")] = None,
    secret_from: Annotated[
        Path | None,
        typer.Option(
            help="File with the client secret, - for stdin; asked for where one is needed.", metavar="FILE"
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="The client has no secret; PKCE alone.")] = False,
    provider_ca: Annotated[
        Path | None, typer.Option(help="PEM file of the provider's own authority.", metavar="FILE")
    ] = None,
    scope: Annotated[list[str] | None, typer.Option(help="What to ask for; may be repeated.")] = None,
    email_claim: Annotated[str | None, typer.Option(help="The claim with the e-mail address.")] = None,
    name_claim: Annotated[str | None, typer.Option(help="The claim with the person's name.")] = None,
    groups_claim: Annotated[
        str | None, typer.Option(help="The claim with their groups; dots lead into objects; '' for none.")
    ] = None,
    emails_verified: Annotated[
        bool | None,
        typer.Option(
            "--emails-verified/--emails-not-verified",
            help="Whether addresses count as verified where the provider does not say email_verified (Entra ID).",
            show_default=False,
        ),
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="Let addresses of this domain alone in; may be repeated.")
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            help="Let nobody in without this claim, e.g. hd=acme.example; may be repeated.", metavar="NAME=VALUE"
        ),
    ] = None,
    jit: Annotated[
        bool | None,
        typer.Option("--jit/--no-jit", help="Whether who is not known is made a member.", show_default=False),
    ] = None,
    default_role: Annotated[
        list[Role] | None, typer.Option(help="Role of who is made a member; may be repeated.")
    ] = None,
    group_role: Annotated[
        list[str] | None,
        typer.Option(help="Who is in GROUP there has ROLE here; may be repeated.", metavar="GROUP=ROLE"),
    ] = None,
    group_team: Annotated[
        list[str] | None,
        typer.Option(help="Who is in GROUP there is in TEAM here; may be repeated.", metavar="GROUP=TEAM"),
    ] = None,
    require_amr: Annotated[
        list[str] | None,
        typer.Option(
            help="Who has ROLE signs in by this method, e.g. admin=mfa; may be repeated.", metavar="ROLE=AMR"
        ),
    ] = None,
    require_acr: Annotated[
        list[str] | None,
        typer.Option(help="The same by an authentication context; may be repeated.", metavar="ROLE=ACR"),
    ] = None,
    only: Annotated[
        bool | None,
        typer.Option(
            "--only/--not-only",
            help="Whether passwords are closed to all but --break-glass.",
            show_default=False,
        ),
    ] = None,
    break_glass: Annotated[
        list[str] | None,
        typer.Option(help="An owner who may use a password all the same; may be repeated.", metavar="MEMBER"),
    ] = None,
) -> None:
    """Set the identity provider, or change what is given of it. Owners only.

    An option that may be repeated replaces all there were; given once and empty ('') it takes them away. The
    client secret is read from a file, stdin or the terminal, never from an argument, and never shown again.
    """
    given: dict[str, Any] = {
        field: value
        for field, value in (
            ("issuer", issuer),
            ("client_id", client_id),
            ("ca_pem", None if provider_ca is None else _pem(provider_ca)),
            ("scopes", _several(scope)),
            ("email_claim", email_claim),
            ("name_claim", name_claim),
            ("groups_claim", groups_claim),
            ("emails_verified", emails_verified),
            ("domains", _several(domain)),
            ("claims", _pairs(claim, "--claim", RequiredClaim)),
            ("jit", jit),
            ("default_roles", None if default_role is None else tuple(default_role)),
            ("group_roles", _pairs(group_role, "--group-role", _group_role, last=True)),
            ("group_teams", _pairs(group_team, "--group-team", GroupTeam, last=True)),
            ("only", only),
            ("break_glass", _several(break_glass)),
        )
        if value is not None
    }
    answer = session.client.read(_path(session), what="the identity provider")
    facts = answer.decode(Facts)
    current = facts.provider
    if current is None:
        if issuer is None or client_id is None:
            raise UsageError(
                "no identity provider is set yet, and a new one needs --issuer and --client-id",
                f"register {facts.redirect_uri} as redirect URI there first",
            )
        current = IdentityProvider(org=OrgId(session.org), issuer=issuer, client_id=client_id, version=0)
    if require_amr is not None or require_acr is not None:
        given["demands"] = _demands(current, require_amr, require_acr)
    moved = structs.replace(current, **given)
    same = current.version > 0 and (moved.issuer, moved.client_id) == (current.issuer, current.client_id)
    secret = None if public else _secret(secret_from, needed=not same)
    body = {
        name: value for name, value in structs.asdict(moved).items() if name not in ("org", "set_at", "version")
    }
    version = current.version or None
    made = session.client.write("PUT", _path(session), body, what="the identity provider", version=version)
    if public or secret is not None:
        shown = _Secret(secret or Secret(""))
        made = session.client.write("PUT", _path(session, "secret"), shown, what="the client secret")
    if made is not None:
        _show(session, made.decode(Facts))
        session.out.say("identity provider set; next: `orgate idp test`")


@command(app, examples("orgate idp show", "orgate idp show --output json"))
def show(session: Session) -> None:
    """Show the identity provider, and the redirect URI to register there. Never its secret."""
    _show(session, session.client.read(_path(session), what="the identity provider").decode(Facts))


@command(app, examples("orgate idp test"), writes=True)
def test(session: Session) -> None:
    """Read its discovery document and keys, show it the client credential, and say what is wrong.

    Exit code 1 when something is. Nobody is signed in: whether claims are as they should be, a sign-in tells.
    """
    answer = session.client.write("POST", _path(session, "test"), what="the identity provider")
    if answer is None:
        return
    result = answer.decode(Tested)
    if session.out.form is Format.TABLE:
        marks = {True: "ok", False: "WRONG", None: "?"}
        for step in result.steps:
            session.out.say(f"{marks[step.ok]:5}  {step.what}: {step.detail}")
        session.out.say(f"       redirect URI to register there: {result.redirect_uri}")
    else:
        session.out.item(result)
    if not result.ok:
        raise RefusedError("single sign-on does not work as it is set", "mend what is marked, and test again")


@command(app, examples("orgate idp unlink bob@acme.example"), writes=True)
def unlink(session: Session, member: Who) -> None:
    """Forget who a member is at the provider: at their next sign-in they are found by e-mail address again."""
    id_ = member_id_of(session, member)
    if session.client.write("DELETE", _path(session, "links", id_), what=f"member '{member}'") is not None:
        session.out.say(f"member '{member}' unlinked")


@command(app, examples("orgate idp remove --yes"), writes=True)
def remove(session: Session, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Take the identity provider away, with its secret and who is linked there. Members sign in with passwords."""
    session.confirm(f"Take the identity provider of '{session.org}' away?", yes=yes)
    answer = session.client.read(_path(session), what="the identity provider")
    if answer.decode(Facts).provider is None:
        raise RefusedError("no identity provider is set")
    gone = session.client.write("DELETE", _path(session), what="the identity provider", version=answer.version)
    if gone is not None:
        session.out.say("identity provider removed")


def _show(session: Session, facts: Facts) -> None:
    if facts.provider is None:
        if session.out.form is Format.TABLE:
            session.out.say("no identity provider is set")
            session.out.say(f"redirect URI to register at one: {facts.redirect_uri}")
            return
        session.out.item(facts)
        return
    shown: dict[str, Any] = {**structs.asdict(facts.provider), "secret": facts.secret}
    if session.out.form is Format.TABLE:
        provider = facts.provider
        shown |= {
            "ca_pem": "set" if provider.ca_pem else "",
            "secret": "set" if facts.secret else "none: a public client",
            "claims": [f"{one.name}={one.value}" for one in provider.claims],
            "group_roles": [f"{one.group}={one.role}" for one in provider.group_roles],
            "group_teams": [f"{one.group}={one.team}" for one in provider.group_teams],
            "demands": [f"{one.role}={'|'.join((*one.acr, *one.amr))}" for one in provider.demands],
        }
    session.out.item({"redirect_uri": facts.redirect_uri, **shown})


def _several(values: list[str] | None) -> tuple[str, ...] | None:
    if values is None:
        return None
    return () if values == [""] else tuple(values)


def _pairs(values: list[str] | None, option: str, make: Any, *, last: bool = False) -> tuple[Any, ...] | None:
    """`A=B` each; `last`: at the last '=', for a group's name may have one."""
    if (several := _several(values)) is None:
        return None
    made = []
    for text in several:
        before, mark, after = text.rpartition("=") if last else text.partition("=")
        if not mark or not before or not after:
            raise UsageError(f"{option}: '{text}' is not two things with '=' between")
        made.append(make(before, after))
    return tuple(made)


def _group_role(group: str, role: str) -> GroupRole:
    return GroupRole(group, _role(role, "--group-role"))


def _role(text: str, option: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise UsageError(f"{option}: '{text}' is no role", f"roles are {', '.join(Role)}") from None


def _demands(current: IdentityProvider, amr: list[str] | None, acr: list[str] | None) -> tuple[Demand, ...]:
    """Those of the kind that is not given stay as they are."""
    found: dict[Role, dict[str, list[str]]] = {}
    for kind, values, option in (("acr", acr, "--require-acr"), ("amr", amr, "--require-amr")):
        pairs = _pairs(values, option, lambda role, value: (role, value))
        if pairs is None:
            for demand in current.demands:
                if stays := getattr(demand, kind):
                    found.setdefault(demand.role, {})[kind] = list(stays)
            continue
        for role, value in pairs:
            found.setdefault(_role(role, option), {}).setdefault(kind, []).append(value)
    return tuple(
        Demand(role, acr=tuple(kinds.get("acr", ())), amr=tuple(kinds.get("amr", ())))
        for role, kinds in found.items()
    )


def _secret(file: Path | None, *, needed: bool) -> Secret | None:
    """What was given; where nothing was and it is `needed`, what is typed at the terminal."""
    try:
        if file is not None and str(file) != "-":
            raw = file.read_bytes()
        elif file is not None and not sys.stdin.isatty():
            raw = sys.stdin.buffer.read(2 * LONGEST)
        elif not needed:
            return None
        elif sys.stdin.isatty():
            raw = getpass.getpass("Client secret: ").encode()
        else:
            raise UsageError("the client secret is missing", "add --secret-from FILE, or --public if it has none")
    except OSError as error:
        raise UsageError(f"--secret-from: {file} cannot be read: {error.strerror}") from None
    try:
        text = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        raise UsageError("the client secret is not ASCII") from None
    if not 0 < len(text) <= LONGEST:
        raise UsageError(f"the client secret has 1 to {LONGEST} characters", "give it alone in the file")
    return Secret(text)


def _pem(path: Path) -> str:
    try:
        raw = path.read_bytes()
        text = raw.decode("ascii")
    except OSError as error:
        raise UsageError(f"--provider-ca: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--provider-ca: {path} is no PEM file") from None
    if len(raw) > LARGEST:
        raise UsageError(f"--provider-ca: {path} has more than {LARGEST // 1024} KiB")
    return text
