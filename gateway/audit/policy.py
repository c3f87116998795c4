"""Which cosignatures make a checkpoint count (C2SP tlog-policy), and whether those under a note are enough.

Strict: every fault of a policy is an error that names its line, because a policy that is read otherwise than it
was meant trusts otherwise than it was meant. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from gateway.audit.cosignature import CosignerKey, cosigned, parse_cosigner_key
from gateway.audit.note import NoteError, VerifierKey, open_note, parse_checkpoint, parse_key, split_note

POLICY_MAX = 256 * 1024
NONE = "none"
"""The quorum of a policy that asks for no cosignature."""

_SPACE = re.compile(r"[ \t]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NUMBER = re.compile(r"[0-9]+")


class PolicyError(ValueError):
    """Not a policy. `line` counts from 1, 0 for what is missing from the whole; the message has both."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}" if line else what)
        self.line = line
        self.what = what


class Log(NamedTuple):
    """A log whose checkpoints count. `url` is '' when none was given."""

    key: VerifierKey
    url: str


class Witness(NamedTuple):
    """A witness as the policy calls it: `name` means something within the policy only."""

    name: str
    key: CosignerKey
    url: str


class Group(NamedTuple):
    """It has witnessed what `need` of its `members` have; those are witnesses or groups of earlier lines."""

    name: str
    need: int
    members: tuple[str, ...]


class Policy(NamedTuple):
    """`quorum` names a witness or a group, or is `NONE`. Each of `groups` names only what stands before it."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def met(self, names: Collection[str]) -> bool:
        """Whether these witnesses, by the policy's names, are a quorum."""
        if self.quorum == NONE:
            return True
        have = set(names)
        for group in self.groups:  # in order: no recursion that a long file could drive too deep
            if sum(member in have for member in group.members) >= group.need:
                have.add(group.name)
        return self.quorum in have

    def text(self, log: VerifierKey | None = None) -> str:
        """The policy as a file. With `log`, for whoever verifies that log: it alone is listed, and no URL."""
        logs = self.logs if log is None else (Log(log, ""),)
        lines = [_line("log", str(one.key), one.url) for one in logs]
        lines += [_line("witness", one.name, str(one.key), "" if log else one.url) for one in self.witnesses]
        lines += [_line("group", one.name, str(one.need), *one.members) for one in self.groups]
        return "".join([*lines, _line("quorum", self.quorum)])


NOBODY = Policy((), (), (), NONE)
"""Asks nobody for anything."""


class Policies(NamedTuple):
    """Whose cosignatures each organization's log is to have: of those in `own` theirs, of all others `others`."""

    own: Mapping[str, Policy] = MappingProxyType({})
    others: Policy = NOBODY

    def of(self, org: str) -> Policy:
        return self.own.get(org, self.others)

    def __bool__(self) -> bool:
        """Whether anybody is asked for anything."""
        return bool(self.others.witnesses or any(policy.witnesses for policy in self.own.values()))


class Cosigned(NamedTuple):
    """`witness` (the policy's name) with `key` cosigned at `at`, Unix seconds by the witness's own clock."""

    witness: str
    key: CosignerKey
    at: int


class Verdict(NamedTuple):
    """`met`: the note counts under the policy. `words` say why or why not, in one sentence.

    `cosigned` are the cosignatures that verify, in the policy's order; `missing` the witnesses without one. When
    the note itself is doubtful (a wrong signature under a known name, a line repeated, a log that the policy does
    not list), `fault` says how, and `met` is False whatever else verifies.
    """

    met: bool
    words: str
    cosigned: tuple[Cosigned, ...] = ()
    missing: tuple[str, ...] = ()
    fault: str = ""


def parse_policy(given: str | bytes) -> Policy:
    """Read a policy file. Raises `PolicyError`, which names the line."""
    if len(given) > POLICY_MAX:
        raise PolicyError(0, f"the policy is longer than {POLICY_MAX // 1024} KiB")
    reader = _Reader()
    for number, line in enumerate(_text(given).split("\n"), 1):
        if found := _CONTROL.search(line):
            raise PolicyError(number, f"holds the control character {found[0]!r}")
        words = _SPACE.split(line.strip(" \t"))
        if words[0] and not words[0].startswith("#"):
            reader.take(number, words)
    return reader.policy()


def judge(policy: Policy, note: str) -> Verdict:
    """Whether a checkpoint, a whole note with its signature lines, counts under `policy`.

    Where the policy lists logs, one of them must have signed it; where it lists none, whose checkpoint it is has
    to be known from elsewhere (`note.open_note`), and nothing is said of it here.
    """
    try:
        if policy.logs:
            _check_log(policy, note)
        found = cosigned(note, [witness.key for witness in policy.witnesses])
    except NoteError as error:
        return Verdict(met=False, words=str(error), fault=str(error))
    by = tuple(Cosigned(one.name, one.key, found[one.key]) for one in policy.witnesses if one.key in found)
    missing = tuple(one.name for one in policy.witnesses if one.key not in found)
    met = policy.met([one.witness for one in by])
    return Verdict(met, _words(policy, by, missing, met=met), by, missing)


def _text(given: str | bytes) -> str:
    if isinstance(given, str):
        return given
    try:
        return given.decode()
    except UnicodeDecodeError as error:
        raise PolicyError(given.count(b"\n", 0, error.start) + 1, "is not UTF-8") from None


def _check_log(policy: Policy, note: str) -> None:
    origin = parse_checkpoint(split_note(note)[0]).origin
    keys = [log.key for log in policy.logs if log.key.name == origin]
    if not keys:
        raise NoteError(f"the policy lists no log {origin}")
    wrong = None
    for key in keys:
        try:
            open_note(note, key)
        except NoteError as error:
            wrong = error
        else:
            return
    if wrong:
        raise wrong


def _words(policy: Policy, by: tuple[Cosigned, ...], missing: tuple[str, ...], *, met: bool) -> str:
    who = ", ".join(f"{one.witness} at {_instant(one.at)}" for one in by)
    if policy.quorum == NONE:
        return "the policy asks for no cosignature" + (f"; there are: {who}" if who else "")
    if met:
        return f"the quorum {policy.quorum} is met: {who}"
    without = f"without a cosignature of {', '.join(missing)}"
    return f"the quorum {policy.quorum} is not met: {who or 'nobody has cosigned'}; {without}"


def _instant(at: int) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"second {at}"


def _line(*words: str) -> str:
    return " ".join(word for word in words if word) + "\n"


class _Reader:
    """Takes the lines of a policy one by one; each may only name what stands above it."""

    def __init__(self) -> None:
        self._logs: list[Log] = []
        self._witnesses: list[Witness] = []
        self._groups: list[Group] = []
        self._quorum = ""
        self._keys: dict[bytes, int] = {}
        self._names: dict[str, int] = {}
        self._members: dict[str, int] = {}

    def take(self, number: int, words: list[str]) -> None:
        kind, rest = words[0], words[1:]
        match kind:
            case "log":
                self._log(number, rest)
            case "witness":
                self._witness(number, rest)
            case "group":
                self._group(number, rest)
            case "quorum":
                self._take_quorum(number, rest)
            case _:
                raise PolicyError(number, f"{kind!r} is none of log, witness, group and quorum")

    def policy(self) -> Policy:
        if not self._quorum:
            raise PolicyError(0, "there is no quorum line: write 'quorum NAME', or 'quorum none'")
        return Policy(tuple(self._logs), tuple(self._witnesses), tuple(self._groups), self._quorum)

    def _log(self, number: int, rest: list[str]) -> None:
        if len(rest) not in (1, 2):
            raise PolicyError(number, "a log is 'log VKEY' or 'log VKEY URL'")
        try:
            key = parse_key(rest[0])
        except NoteError as error:
            raise PolicyError(number, str(error)) from None
        self._once(number, key.public, "log")
        self._logs.append(Log(key, "".join(rest[1:])))

    def _witness(self, number: int, rest: list[str]) -> None:
        if len(rest) not in (2, 3):
            raise PolicyError(number, "a witness is 'witness NAME VKEY' or 'witness NAME VKEY URL'")
        self._name(number, rest[0])
        try:
            key = parse_cosigner_key(rest[1])
        except NoteError as error:
            raise PolicyError(number, str(error)) from None
        self._once(number, key.public, "witness")
        self._witnesses.append(Witness(rest[0], key, "".join(rest[2:])))

    def _group(self, number: int, rest: list[str]) -> None:
        if len(rest) < 3:
            raise PolicyError(number, "a group is 'group NAME all|any|NUMBER MEMBER...', with a member at least")
        name, need, members = rest[0], rest[1], rest[2:]
        for member in members:
            if member not in self._names:
                raise PolicyError(number, f"{member!r} is no witness or group of a line above")
            if other := self._members.get(member):
                raise PolicyError(number, f"{member!r} is a member already, in line {other}: it would count twice")
            self._members[member] = number
        self._name(number, name)
        self._groups.append(Group(name, _need(number, need, len(members)), tuple(members)))

    def _take_quorum(self, number: int, rest: list[str]) -> None:
        if len(rest) != 1:
            raise PolicyError(number, "the quorum is 'quorum NAME', or 'quorum none'")
        if self._quorum:
            raise PolicyError(number, "there is a quorum line already: a policy has one")
        if rest[0] != NONE and rest[0] not in self._names:
            raise PolicyError(number, f"{rest[0]!r} is no witness or group of a line above")
        self._quorum = rest[0]

    def _name(self, number: int, name: str) -> None:
        if name == NONE:
            raise PolicyError(number, "'none' is reserved: give it another name")
        if other := self._names.get(name):
            raise PolicyError(number, f"{name!r} is a name already, in line {other}")
        self._names[name] = number

    def _once(self, number: int, public: bytes, kind: str) -> None:
        if other := self._keys.get(public):
            raise PolicyError(number, f"the key of this {kind} is in line {other} already: one key, one voice")
        self._keys[public] = number


def _need(number: int, text: str, members: int) -> int:
    if text in ("all", "any"):
        return members if text == "all" else 1
    if not _NUMBER.fullmatch(text) or text != text.lstrip("0"):
        raise PolicyError(number, f"{text!r} is neither all nor any nor a number from 1 on")
    if len(text) > 6 or int(text) > members:
        raise PolicyError(number, f"{text} of {members} can never be: a group needs at most as many as it has")
    return int(text)
