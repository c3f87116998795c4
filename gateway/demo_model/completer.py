"""A rule-based completer of code: the same text in, the same plausible ghost text out.

The rules are tried in order and look at the text before the cursor only; the text after it (fill in the middle)
cuts off what it already says. Nothing is learned, kept or random.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

INDENT: Final = "    "
LOOKBACK: Final = 8_000
"""Characters before the cursor that the rules look at: their regular expressions stay cheap on a long file."""

_TOKEN = re.compile(r" ?\w{1,12}|\n *|[^\w\n]")
_DEFINITION = re.compile(
    r"^(?P<indent>[ \t]*)(?:async )?def (?P<name>\w+)\((?P<arguments>[^)\n]*)\)[^:\n]*:", re.M
)
_PARTIAL_DEFINITION = re.compile(r"^[ \t]*(?:async )?def (?P<name>\w+)(?P<open>\(?)$", re.M)
_CLASS = re.compile(r"^(?P<indent>[ \t]*)class (?P<name>\w+)[^:\n]*:[ \t]*\n?[ \t]*$", re.M)
_COMMENT = re.compile(r"^(?P<indent>[ \t]*)# (?P<words>[^\n]+)\n?$", re.M)
_ASSIGNED = re.compile(r"^[ \t]*(?P<name>\w+)(?:: [^=\n]+)? = ", re.M)

# The body of a function by its name. {0}, {1} are its arguments, {f} is itself.
_BODIES: Final[dict[str, Sequence[str]]] = {
    "fib": ("if {0} < 2:", INDENT + "return {0}", "return {f}({0} - 1) + {f}({0} - 2)"),
    "fibonacci": ("if {0} < 2:", INDENT + "return {0}", "return {f}({0} - 1) + {f}({0} - 2)"),
    "factorial": ("if {0} < 2:", INDENT + "return 1", "return {0} * {f}({0} - 1)"),
    "gcd": ("while {1}:", INDENT + "{0}, {1} = {1}, {0} % {1}", "return {0}"),
    "is_prime": (
        "if {0} < 2:",
        INDENT + "return False",
        "return all({0} % divisor for divisor in range(2, int({0}**0.5) + 1))",
    ),
    "is_palindrome": ("return {0} == {0}[::-1]",),
    "add": ("return {0} + {1}",),
    "mean": ("return sum({0}) / len({0})",),
    "quicksort": (
        "if len({0}) < 2:",
        INDENT + "return {0}",
        "pivot, *rest = {0}",
        "smaller = [item for item in rest if item < pivot]",
        "larger = [item for item in rest if item >= pivot]",
        "return [*{f}(smaller), pivot, *{f}(larger)]",
    ),
    "binary_search": (
        "low, high = 0, len({0}) - 1",
        "while low <= high:",
        INDENT + "middle = (low + high) // 2",
        INDENT + "if {0}[middle] == {1}:",
        INDENT * 2 + "return middle",
        INDENT + "if {0}[middle] < {1}:",
        INDENT * 2 + "low = middle + 1",
        INDENT + "else:",
        INDENT * 2 + "high = middle - 1",
        "return -1",
    ),
    "main": ('print("Hello, world")', "return 0"),
}

# And by how its name begins, when the whole name is unknown.
_PREFIXES: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("is_", ("return bool({0})",)),
    ("has_", ("return {1} in {0}",)),
    ("count", ("return sum(1 for item in {0} if item)",)),
    ("sort", ("return sorted({0})",)),
    ("reverse", ("return {0}[::-1]",)),
    ("load", ("with open({0}) as file:", INDENT + "return json.load(file)")),
    ("read", ("with open({0}) as file:", INDENT + "return file.read()")),
    ("write", ("with open({0}, 'w') as file:", INDENT + "file.write({1})")),
    ("get_", ("return self._values[{0}]",)),
    ("parse", ("return [part.strip() for part in {0}.split(',')]",)),
)

_LINES: Final[Sequence[tuple[re.Pattern[str], str]]] = (
    (re.compile(r"^from $"), "pathlib import Path"),
    (re.compile(r"^import $"), "json"),
    (re.compile(r"^if __name__ == ?$"), ' "__main__":\n    main()'),
    (re.compile(r"for (\w+) in $"), r"range(10):"),
    (re.compile(r"^while $"), "True:"),
    (re.compile(r"print\($"), '"Hello, world")'),
    (re.compile(r"with open\($"), "path) as file:"),
)


def tokens_of(text: str) -> list[str]:
    """The pieces an answer is streamed in and usage is counted in. Joined they are the text again."""
    return _TOKEN.findall(text)


def complete(prompt: str, suffix: str = "") -> str:
    """What could stand between `prompt` and `suffix`; never empty."""
    before = prompt[-LOOKBACK:]
    for rule in _RULES:
        text = rule(before)
        if text:
            break
    else:
        text = _anything(before)
    return _without_overlap(text, suffix) or text


def reply(message: str) -> str:
    """What a chat answers to its last user message: code for code, else a sentence that says what this is."""
    code = message[-LOOKBACK:]
    if _DEFINITION.search(code) or _PARTIAL_DEFINITION.search(code) or "class " in code:
        code = code.strip().removesuffix("```").rstrip()
        return f"```python\n{_head(code)}{complete(code)}\n```"
    words = len(message.split())
    return (
        f"This is the demo model. It read {words} words and understands none of them: "
        "send it the first line of a Python function and it will complete it."
    )


def _head(code: str) -> str:
    """The line that the completion continues, so that the answer is whole."""
    definitions = list(_DEFINITION.finditer(code))
    return code[definitions[-1].start() :].lstrip("\n") if definitions else code.rsplit("\n", 1)[-1]


def _without_overlap(text: str, suffix: str) -> str:
    """`text` without its own end, where the suffix begins with the same."""
    for length in range(min(len(text), len(suffix)), 0, -1):
        if text.endswith(suffix[:length]):
            return text[:-length]
    first = suffix.lstrip().split("\n", 1)[0]
    return text.split(first, 1)[0] if len(first) > 3 and first in text else text


def _function_body(before: str) -> str:
    definitions = list(_DEFINITION.finditer(before))
    if not definitions:
        return ""
    found = definitions[-1]
    arguments = [part.split(":")[0].split("=")[0].strip(" *") for part in found["arguments"].split(",")]
    arguments = [name for name in arguments if name and name not in {"self", "cls"}]
    lines = _body_lines(found["name"])
    if lines is None:
        return ""
    names = [*arguments, "items", "value"] if arguments else ["items", "value"]
    indent = found["indent"] + INDENT
    body = "".join(f"\n{indent}{line.format(*names, f=found['name'])}" for line in lines)
    typed = before[found.end() :]
    if body.startswith(typed) and typed != body:
        return body[len(typed) :]
    # The cursor may stand on a fresh line, before its indentation.
    if not typed.strip() and typed.startswith("\n"):
        return body[1:] if typed == "\n" else body.lstrip()
    return ""


def _body_lines(name: str) -> Sequence[str] | None:
    if name in _BODIES:
        return _BODIES[name]
    return next((lines for prefix, lines in _PREFIXES if name.startswith(prefix)), None)


def _signature(before: str) -> str:
    found = _PARTIAL_DEFINITION.search(before[before.rfind("\n") + 1 :])
    if not found:
        return ""
    two = found["name"] in {"add", "gcd", "binary_search"}
    return ("" if found["open"] else "(") + ("a, b" if two else "n") + "):"


def _class_body(before: str) -> str:
    found = _CLASS.search(before)
    if not found:
        return ""
    indent = found["indent"] + INDENT
    lead = "" if before.endswith((" ", "\t")) else indent
    newline = "" if "\n" in found.group() else "\n"
    return f"{newline}{lead}def __init__(self, name: str) -> None:\n{indent}{INDENT}self.name = name"


def _return_value(before: str) -> str:
    if not before.endswith("return "):
        return ""
    names = _ASSIGNED.findall(before)
    return names[-1] if names else "None"


def _line(before: str) -> str:
    line = before[before.rfind("\n") + 1 :]
    for pattern, text in _LINES:
        if pattern.search(line.lstrip()):
            return text
    return ""


def _from_comment(before: str) -> str:
    found = _COMMENT.search(before)
    if not found:
        return ""
    name = "_".join(re.findall(r"[a-z]+", found["words"].lower())[:4]) or "run"
    lead = "" if before.endswith("\n") else "\n"
    indent = found["indent"]
    return f"{lead}{indent}def {name}(items):\n{indent}{INDENT}return [item for item in items if item]"


def _anything(before: str) -> str:
    """A call of something the text already names, picked by the text itself."""
    names = sorted(set(re.findall(r"\b[a-z_][a-z_0-9]{2,}\b", before))) or ["value"]
    pick = int.from_bytes(blake2b(before.encode(errors="replace"), digest_size=4).digest()) % len(names)
    return f"result = process({names[pick]})\nreturn result" if before.endswith("\n") else f"({names[pick]})"


_RULES: Final[Sequence[Callable[[str], str]]] = (
    _function_body,
    _signature,
    _class_body,
    _return_value,
    _line,
    _from_comment,
)
