"""How a function becomes a command: the options every command takes are added here, once.

    @command(app, examples("orgate model list"))
    def list_(session: Session) -> None: ...

The function gets a `Session` first; the rest of its parameters are its own arguments and options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

F = TypeVar("F", bound=Callable[..., Any])

ORG = typer.Option("--org", envvar="ORGATE_ORG", help="Organization to act on; else the profile's.", metavar="ORG")
PROFILE = typer.Option("--profile", envvar="ORGATE_PROFILE", help="Which saved gateway and login.", metavar="NAME")
OUTPUT = typer.Option("--output", "-o", envvar="ORGATE_OUTPUT", help="table, json, yaml or csv.", metavar="FORMAT")
VERBOSE = typer.Option("--verbose", help="Tell each request on stderr (never a token or a body).")
DRY_RUN = typer.Option("--dry-run", help="Show what would be sent; change nothing.")

FORMATS = ("table", "json", "yaml", "csv")


def known_format(text: str | None) -> str | None:
    """Refuse an unknown `--output` where it is parsed, so that the usage is shown."""
    if text is not None and text not in FORMATS:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(FORMATS)}")
    return text


OUTPUT.callback = known_format


class _Command(TyperCommand):
    """A command that says what is wrong with a value without the name of what found it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            left: list[str] = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise
        return left


class _Secretive(_Command):
    """A command whose stray arguments may be a secret: they are not repeated, for stderr ends up in CI's logs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        left: list[str] = super().parse_args(ctx, args)
        if left:
            ctx.fail(
                "a key is no argument: it would be in the shell's history, and in lists of processes. Type it "
                "when asked, pipe it in or give --from-file; one that was an argument just now is best replaced."
            )
        return left


def command(
    app: typer.Typer, epilog: str, *, name: str | None = None, writes: bool = False, secretive: bool = False
) -> Callable[[F], F]:
    """Register a function as a command of `app`. `writes` adds `--dry-run`; `secretive`: it reads a secret, which
    must not be an argument. Its docstring is its help."""

    def register(function: F) -> F:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(function, eval_str=True).parameters.values()
            if parameter.name != "session"
        ]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [context, *own, *(_option(*option) for option in _SHARED if writes or option[0] != "dry_run")]

        def run(**given: Any) -> Any:
            from cli.session import Options, Session

            # What was given before the command's name (`orgate --org acme model list`) holds where the
            # command's own option says nothing.
            before: dict[str, Any] = given.pop("context").find_root().params
            chosen = {key: given.pop(key, None) or before.get(key) for key, *_ in _SHARED}
            with Session(Options(**{key: value for key, value in chosen.items() if value})) as session:
                return function(session, **given)

        run.__name__ = function.__name__
        run.__doc__ = function.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        kind = _Secretive if secretive else _Command
        shown = name or function.__name__.rstrip("_").replace("_", "-")
        app.command(shown, epilog=epilog, cls=kind, short_help=_summary(function))(run)
        return function

    return register


def _summary(function: Callable[..., Any]) -> str:
    """The first sentence of a command's help, whole: what its group lists would be cut off otherwise."""
    first = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    return first.partition(". ")[0].rstrip(".") + "."


_SHARED: tuple[tuple[str, Any, Any, Any], ...] = (
    ("org", str | None, ORG, None),
    ("profile", str | None, PROFILE, None),
    ("output", str | None, OUTPUT, None),
    ("verbose", bool, VERBOSE, False),
    ("dry_run", bool, DRY_RUN, False),
)


def _option(name: str, kind: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )
