"""cli.md: every command, its options, examples and exit codes, read from the Typer application."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import typer

from cli.command import FORMATS
from cli.errors import ExitCode
from cli.main import COMMANDS, app
from docs.build.markdown import block, code, codes, page, table

COMMON = ("org", "profile", "output", "verbose")
"""Options that every command takes: said once, not forty times."""

EXIT_CODES = {
    ExitCode.DONE: "done",
    ExitCode.REFUSED: "the server or a check said no",
    ExitCode.USAGE: "the command was called wrongly",
    ExitCode.NOT_ALLOWED: "not signed in, or not allowed",
    ExitCode.UNREACHABLE: "the server cannot be reached",
    ExitCode.INTERRUPTED: "Ctrl-C, where something was left that can be gone on with: the message says how",
}


def tree() -> Any:
    """The whole command tree, as typer builds it for `orgate`."""
    return typer.main.get_command(app)


def commands(group: Any, path: tuple[str, ...] = ("orgate",)) -> list[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its full name, in the order of `--help`."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name in group.commands:
        one = group.commands[name]
        full = (*path, name)
        found += commands(one, full) if hasattr(one, "commands") else [(full, one)]
    return found


def render() -> str:
    root = tree()
    blocks = [
        "One program for everybody. `orgate COMMAND --help` says the same as this page.",
        "## Exit codes",
        table(("code", "means"), [(str(int(number)), EXIT_CODES[number]) for number in ExitCode]),
        "## Options of every command",
        "Before the command's name or after it. `serve` and `demo` have options of their own only.",
        _options([option for option in root.params if option.name in COMMON]),
        f"`--output` is one of {codes(FORMATS)}; JSON and YAML carry every field, tables the useful ones.",
        "`--dry-run`, on every command that changes something, shows the request that would be sent and sends"
        " none.",
        "## Commands",
        table(
            ("command", "what it does"),
            [(f"[`orgate {name}`](#{_anchor(name, root)})", about) for name, (_, _, about) in COMMANDS.items()],
        ),
    ]
    for path, command in commands(root):
        blocks += _command(path, command)
    return page("Commands", "`cli/`", *blocks)


def _anchor(name: str, root: Any) -> str:
    one = root.commands[name]
    below = next(iter(one.commands), "") if hasattr(one, "commands") else ""
    return "-".join(filter(None, ("orgate", name, below)))


def _command(path: tuple[str, ...], command: Any) -> list[str]:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item not in arguments and item.name not in (*COMMON, "dry_run")]
    usage = " ".join([*path, *(_placeholder(item) for item in arguments), "[OPTIONS]"])
    blocks = [f"### {' '.join(path)}", command.help or "", block("text", usage)]
    if arguments:
        blocks.append(
            table(("argument", "meaning"), [(code(_placeholder(item)), item.help) for item in arguments])
        )
    if options:
        blocks.append(_options(options))
    if any(item.name == "dry_run" for item in command.params):
        blocks.append("Takes `--dry-run`.")
    blocks.append(block("sh", _examples(command)))
    return blocks


def _placeholder(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _options(options: list[Any]) -> str:
    rows = []
    for option in options:
        names = codes([*option.opts, *option.secondary_opts])
        rows.append((names, _value(option), _default(option), " ".join(filter(None, (option.help, _env(option))))))
    return table(("option", "value", "default", "meaning"), rows)


def _value(option: Any) -> str:
    if option.is_flag:
        return ""
    kind = option.type_descriptor.annotation
    if option.multiple:
        return "`text`, may be repeated"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return codes(member.value for member in kind)
    if option.min is not None or option.max is not None:
        low = "" if option.min is None else f"from {option.min}"
        high = "" if option.max is None else f"to {option.max}"
        return " ".join(filter(None, ("number", low, high)))
    return code(option.metavar or _KINDS.get(kind, "text"))


_KINDS = {int: "number", float: "number", Path: "path"}


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default in (None, "", False, ()) or not option.show_default:
        return ""
    if option.is_flag and option.secondary_opts:
        return code(option.opts[0])
    value = option.default
    return code(value.value if isinstance(value, Enum) else value)


def _env(option: Any) -> str:
    return f"Environment: `{option.envvar}`." if option.envvar else ""


def _examples(command: Any) -> str:
    """The epilog, without its heading and its two spaces of indent."""
    lines = (command.epilog or "").splitlines()
    return "\n".join(line.removeprefix("  ") for line in lines if line.strip() not in ("\b", "Examples:"))
