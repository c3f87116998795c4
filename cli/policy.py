"""`orgate policy`: an organization's rules, kept in a file and applied as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct, ValidationError, convert

from cli.command import command
from cli.errors import NOT_READABLE, UsageError, unreadable
from cli.examples import examples
from cli.output import Column, printable
from cli.resources import Resource, body_of, describe, differences
from cli.session import Session
from policies.facts import Action, Role
from policies.rules import Effect
from tenants.ids import InvalidIdError, OrgId, resource_name
from tenants.models import OrgRule

app = typer.Typer(
    help="Rules that say who may use which model for what.",
    epilog=examples(
        "orgate policy list", "orgate policy apply rules.yaml --dry-run", "orgate policy apply rules.yaml"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS = [
    Column("NAME", "name"),
    Column("EFFECT", "effect"),
    Column("ROLES", "roles"),
    Column("ACTIONS", "actions"),
    Column("MODELS", "models"),
]
LARGEST = 1024 * 1024


class WrittenRule(Struct, frozen=True, forbid_unknown_fields=True):
    """A rule as it stands in a file."""

    name: str
    effect: Effect
    roles: tuple[Role, ...]
    actions: tuple[Action, ...]
    models: tuple[str, ...]


class PolicyChange(Struct, frozen=True):
    """One step from the rules that stand to those of the file. `version` is of the rule that stands."""

    step: str
    rule: OrgRule
    version: int = 0
    was: OrgRule | None = None


def _rules(session: Session) -> Resource[OrgRule]:
    return session.resource("rules", OrgRule, "rule")


@command(app, examples("orgate policy list", "orgate policy list --output yaml > rules.yaml"), name="list")
def list_(session: Session) -> None:
    """List the rules. Nothing is allowed but what a rule allows; a deny beats every allow.

    As yaml or json, the output is a file that `apply` takes.
    """
    rules = [
        WrittenRule(rule.name, rule.effect, rule.roles, rule.actions, rule.models)
        for rule in _rules(session).list()
    ]
    session.out.items(rules, COLUMNS, empty="no rules: every request is refused")


@command(
    app, examples("orgate policy apply rules.yaml --dry-run", "orgate policy apply rules.yaml --yes"), writes=True
)
def apply(
    session: Session,
    file: Annotated[Path, typer.Argument(help="A list of rules, YAML or JSON.", metavar="FILE")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make the rules those of FILE: shows what changes, asks, then adds, replaces and deletes."""
    wanted = read_rules(file, OrgId(session.org))
    rules = _rules(session)
    changes = plan(rules.list(), wanted)
    if not changes:
        session.out.say("the rules are as in the file already")
        return
    for change in changes:
        for line in _shown(change):
            session.out.say(line)
    session.confirm(f"Apply {len(changes)} change{'s' if len(changes) > 1 else ''} to '{session.org}'?", yes=yes)
    sent = [_send(rules, session, change) for change in changes]
    if all(sent):
        session.out.say(
            f"applied {len(sent)} change{'s' if len(sent) > 1 else ''}; live on every worker within 5 s"
        )


def read_rules(file: Path, org: OrgId) -> list[OrgRule]:
    """The rules in `file`. Raises `UsageError` that names the rule and the field."""
    import yaml

    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"{file} is larger than {LARGEST // 1024} KiB")
        found: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, *NOT_READABLE) as error:
        raise UsageError(f"{file} is neither YAML nor JSON: {unreadable(error)}") from None
    if isinstance(found, dict) and list(found) == ["rules"]:
        found = found["rules"]
    if not isinstance(found, list):
        raise UsageError(f"{file} holds no list of rules", "begin each rule with `- name: ...`")
    rules: dict[str, OrgRule] = {}
    faults: list[str] = []
    for place, item in enumerate(found):
        label = f"rule {place + 1}"
        try:
            rule = convert(item, WrittenRule)
            label = f"rule '{printable(rule.name)}'"
            if resource_name(rule.name) in rules:
                faults.append(f"{label}: its name stands twice")
            rules[rule.name] = OrgRule(org, rule.name, rule.effect, rule.roles, rule.actions, rule.models)
        except (ValidationError, InvalidIdError) as error:
            faults.append(f"{label}: {error}")
    if faults:
        raise UsageError("\n  ".join([f"{file} has faults; nothing was changed:", *faults]))
    return list(rules.values())


def plan(standing: list[OrgRule], wanted: list[OrgRule]) -> list[PolicyChange]:
    """The steps, in an order that keeps every moment between two of them as strict as the stricter end:
    new denials first, then what is no longer allowed, then replacements, new permits, and lifted denials last.
    """
    was, will = {rule.name: rule for rule in standing}, {rule.name: rule for rule in wanted}
    added = [rule for name, rule in will.items() if name not in was]
    removed = [rule for name, rule in was.items() if name not in will]
    replaced = [
        PolicyChange("change", rule, was[name].version, was[name])
        for name, rule in will.items()
        if name in was and differences(was[name], rule)
    ]
    return [
        *(PolicyChange("add", rule) for rule in added if rule.effect is Effect.DENY),
        *(PolicyChange("delete", rule, rule.version) for rule in removed if rule.effect is Effect.ALLOW),
        *replaced,
        *(PolicyChange("add", rule) for rule in added if rule.effect is Effect.ALLOW),
        *(PolicyChange("delete", rule, rule.version) for rule in removed if rule.effect is Effect.DENY),
    ]


def _send(rules: Resource[OrgRule], session: Session, change: PolicyChange) -> bool:
    name = change.rule.name
    if change.step == "add":
        return rules.create(body_of(change.rule), name) is not None
    if change.step == "change":
        return rules.replace(name, change.rule, change.version) is not None
    gone = session.client.write("DELETE", rules.at(name), what=rules.what(name), version=change.version)
    return gone is not None


def _shown(change: PolicyChange) -> list[str]:
    rule = change.rule
    if change.was is not None:
        return [f"~ {rule.name}", *(f"    {line}" for line in describe(differences(change.was, rule)))]
    sign = "+" if change.step == "add" else "-"
    who, what, which = ", ".join(rule.roles), ", ".join(rule.actions), ", ".join(rule.models)
    return [f"{sign} {rule.name}: {rule.effect} {who} · {what} · {printable(which)}"]
