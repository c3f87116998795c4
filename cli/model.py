"""`orgate model`: the names callers use, and what they lead to."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import structs

from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.output import Column
from cli.resources import Resource, body_of
from cli.session import Session
from policies.facts import Action
from tenants.ids import OrgId
from tenants.models import ModelAlias

app = typer.Typer(
    help="Model names that callers use, and what they lead to.",
    epilog=examples("orgate model create code --upstream vllm --model qwen2.5-coder-7b", "orgate model list"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS = [
    Column("NAME", "name"),
    Column("UPSTREAM", "upstream"),
    Column("MODEL", "model"),
    Column("TASKS", "tasks"),
    Column("MAX TOKENS", "max_tokens"),
]
Name = Annotated[str, typer.Argument(help="The name callers use.")]
Tasks = Annotated[list[Action] | None, typer.Option("--task", help="What it may be asked for; may be repeated.")]
MaxTokens = Annotated[int | None, typer.Option(help="Assumed of a call that names none.", min=1)]


def _models(session: Session) -> Resource[ModelAlias]:
    return session.resource("models", ModelAlias, "model")


@command(app, examples("orgate model list", "orgate model list --upstream vllm --output json"), name="list")
def list_(
    session: Session,
    upstream: Annotated[str | None, typer.Option(help="Only those that lead to it.")] = None,
) -> None:
    """List the organization's model names."""
    session.out.items(_models(session).list(upstream=upstream or ""), COLUMNS, empty="no models yet")


@command(
    app,
    examples(
        "orgate model create code --upstream vllm --model qwen2.5-coder-7b",
        "orgate model create embed --upstream vllm --model bge-m3 --task embeddings",
    ),
    writes=True,
)
def create(
    session: Session,
    *,
    name: Name,
    upstream: Annotated[str, typer.Option(help="The upstream that serves it.")],
    model: Annotated[str, typer.Option(help="What the upstream calls it.")],
    task: Tasks = None,
    max_tokens: MaxTokens = None,
) -> None:
    """Give a model of an upstream the name that callers use."""
    made = ModelAlias(org=OrgId(session.org), name=name, upstream=upstream, model=model)
    made = structs.replace(made, tasks=tuple(task or made.tasks), max_tokens=max_tokens or made.max_tokens)
    session.wrote(_models(session).create(body_of(made), name), f"model '{name}' created")


@command(app, examples("orgate model show code"))
def show(session: Session, name: Name) -> None:
    """Show one model name."""
    session.out.item(_models(session).get(name)[0])


@command(
    app,
    examples(
        "orgate model set code --model qwen2.5-coder-14b", "orgate model set code --upstream spare --dry-run"
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    *,
    name: Name,
    upstream: Annotated[str | None, typer.Option(help="The upstream that serves it.")] = None,
    model: Annotated[str | None, typer.Option(help="What the upstream calls it.")] = None,
    task: Tasks = None,
    max_tokens: MaxTokens = None,
) -> None:
    """Change what a model name leads to; callers notice nothing."""
    if upstream is None and model is None and not task and max_tokens is None:
        raise UsageError("nothing to change", "give --upstream, --model, --task or --max-tokens")

    def edit(was: ModelAlias) -> ModelAlias:
        return structs.replace(
            was,
            upstream=was.upstream if upstream is None else upstream,
            model=was.model if model is None else model,
            tasks=tuple(task) if task else was.tasks,
            max_tokens=was.max_tokens if max_tokens is None else max_tokens,
        )

    session.wrote(_models(session).change(name, edit), f"model '{name}' changed")


@command(app, examples("orgate model delete code --yes"), writes=True)
def delete(
    session: Session, name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete a model name. Calls that use it get 404 from then on."""
    session.confirm(f"Delete model '{name}'?", yes=yes)
    if _models(session).delete(name):
        session.out.say(f"model '{name}' deleted")
