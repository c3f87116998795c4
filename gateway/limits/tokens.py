"""How many tokens a request is: before it is sent, and where its provider has not said.

A model's provider knows best: what it reports of some prompts says how many tokens a byte of others is. Until it
has reported, and where it never does, a real tokenizer counts (`gateway.limits.tokenizer`), so that nothing rests
on a rule of thumb. Why not every prompt is counted: docs/design/0018-counting-tokens.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec import Raw, Struct

from gateway.exchange import Call, Permit, Usage
from gateway.limits.tokenizer import ours
from gateway.texts import texts
from policies.facts import Action
from tenants.ids import OrgId

BYTES_PER_TOKEN = 4
"""The usual rule of thumb for code and English: before the tokenizer is there, and for answers of models that have
never reported any."""

MOST = 9 * 10**15
"""No estimate is larger, and no limit: a double still tells each whole number from the next."""

IMAGE_TOKENS = 1_000
"""One image, in a data URL or by its address: OpenAI's take from 85 to about 1,500, whatever their bytes."""

MOST_IMAGES = 1_000
"""Looked for in one request; what more there are count by their bytes. To look for all that fit into 8 MB would
take a quarter of a second of everybody's time."""

EXACT = 8
"""So many prompts of a model are counted before what is known of it is relied on."""

EVERY = 32
"""Of a model whose provider never reports, every so many prompts one is counted."""

HEARD = 8
"""Of what a provider reports, every so many is taken in, once as many as `EXACT` have been."""

SAMPLE = 4_096
"""Bytes of one prompt that are counted at most: half of them from its beginning and half from its end stand for
the rest. A tokenizer takes 0.1 ms for so many, and 2 ms for the worst that somebody may think of."""

MEMORY = 1_000_000
"""Bytes after which what was seen before counts half."""

LOOKED_INTO = 65_536
"""Bytes of messages up to which it is looked whether they have parts at all: 1 ms for the worst that fits into so
many. In more than that images are looked for at once."""

SHARE = 64
"""No report stands for more than this part of `MEMORY`, 15 KB: a few long prompts do not outweigh all others."""

BELIEVED = 4
"""Tokens for one byte of a prompt or one event of an answer, at most."""

SPARSE = 16
"""Bytes of a prompt, or events of an answer, for one token, at most. Code has 3 to 6, base64 under 2, Chinese as
\\uXXXX 5 and Russian 12; more than 16 has what is long on purpose, as are spaces by the thousand."""

REMEMBERED = 4_096
"""Models of which something is known, by organization, the provider's name and task."""

# By the task's plain text, as all that is looked up here: to hash a member of an enumeration is a call.
_TEXT = {
    Action.COMPLETE.value: ("prompt", "suffix"),
    Action.CHAT.value: ("messages", "tools", "functions", "response_format"),
    Action.EMBED.value: ("input",),
}
_CHAT = Action.CHAT
_BESIDE = frozenset(_TEXT[_CHAT.value]) - {"messages"}
_LIST = ord("[")

# In JSON a quote within a text has a backslash before it, so that these are the names of members and nothing else:
# `image_url`, and `video_url` or `audio_url` of servers that have them.
_MEDIUM = b'_url"'
_PART = re.compile(
    rb'_url"(?:\s{99}|\s*+:(\s{0,9}+(?:\{\s{0,9}+(?:"\w{1,32}"\s{0,9}+:\s{0,9}+"[\w./+-]{0,64}"\s{0,9}+,\s{0,9}+){0,8}+'
    rb'"url"\s{0,9}+:\s{0,9}+)?"data:image\\?/[\w.+-]{1,64};base64,)?)'
)
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\"

# The same names as no program writes them, by the last of their letters that is escaped.
_ESCAPE = b"\\u00"
_ESCAPED = (rb'\u006c"', rb'\u006C"', rb'\u0072l"', rb'\u0075rl"', rb'\u005furl"', rb'\u005Furl"')


class _Message(Struct, gc=False):
    content: Raw = Raw(b"null")


_messages = msgspec.json.Decoder(list[_Message]).decode


class Ratio:
    """Tokens for so many of something else, as last seen."""

    __slots__ = ("seen", "times", "tokens")

    def __init__(self) -> None:
        self.tokens = self.seen = self.times = 0

    def add(self, tokens: int, seen: int, memory: int = MEMORY) -> None:
        """No report counts for more than is believed of any, nor for less, nor for more than its share: whoever
        hides a long prompt from what is measured would otherwise make everybody's dear, and whoever sends what is
        long and has no tokens would make their own cheap."""
        share = memory // SHARE
        if seen > share:
            tokens, seen = -(-tokens * share // seen), share
        self.tokens += _believed(tokens, seen)
        self.seen += seen
        self.times += 1
        if self.seen > memory:
            self.seen >>= 1
            self.tokens = _believed(self.tokens >> 1, self.seen)

    def of(self, seen: int) -> int:
        """Rounded up, at most `BELIEVED` for each and at least one for `SPARSE`: what an upstream reports is
        believed within reason."""
        return -(-seen * self.tokens // self.seen) if self.seen else 0


def _believed(tokens: int, seen: int) -> int:
    return max(min(tokens, BELIEVED * seen), -(-seen // SPARSE))


class _Model:
    """What is known of one model's tokens."""

    __slots__ = ("answers", "asked", "counted", "heard", "reported")

    def __init__(self) -> None:
        self.reported = Ratio()
        """By its provider, for a prompt's bytes."""
        self.counted = Ratio()
        """By the tokenizer."""
        self.answers = Ratio()
        """By its provider, for a stream's events."""
        self.asked = self.heard = 0


class Tokens:
    """One worker's knowledge. `count` is the tokenizer: None as long as it cannot count."""

    def __init__(self, count: Callable[[str], int | None] = ours.count) -> None:
        self._count = count
        self._models: dict[tuple[OrgId, str, str], _Model] = {}

    def of_prompt(self, permit: Permit, *, roughly: bool = False) -> int:
        """Tokens of what the call sends. Exact for a list of tokens.

        `roughly`: as is reserved. Short messages are not searched for images then, which most do not have and
        which takes as long as all the rest: they are found when the call is charged, if nobody has reported.
        """
        call = permit.call
        octets, known = _measured(call, SAMPLE if roughly else 0)
        if not octets:
            return known
        model = self._models.get(_key(permit)) or self._model(permit)
        reported = model.reported
        if reported.times >= EXACT:
            return known - (-octets * reported.tokens // reported.seen)
        model.asked += 1
        if model.counted.times < EXACT or model.asked % EVERY == 0:
            counted = self._counted(call, octets)
            if counted is not None:
                model.counted.add(counted, octets)
                return min(known + counted, MOST)
        return known + (model.counted.of(octets) or -(-octets // BYTES_PER_TOKEN))

    def of_answer(self, permit: Permit, events: int, octets: int) -> int:
        """Tokens of what has come of an answer: `events` of a stream, `octets` of text where that is known.

        One event is one token with most servers; where it is not, what they report tells, and before they have
        reported the text does.
        """
        model = self._models.get(_key(permit))
        if model is not None and events and model.answers.times:
            return model.answers.of(events)
        if model is not None and model.counted.times >= EXACT:
            return max(events, model.counted.of(octets))
        return max(events, -(-octets // BYTES_PER_TOKEN))

    def learn(self, permit: Permit, usage: Usage, events: int) -> None:
        """What the provider reported for this call, and how many events its answer had."""
        model = self._model(permit)
        model.heard += 1
        if model.heard % HEARD and model.reported.times >= EXACT:
            return
        octets, known = _measured(permit.call)
        if usage.prompt_tokens > known and octets:
            model.reported.add(usage.prompt_tokens - known, octets)
        if events and usage.completion_tokens:
            model.answers.add(usage.completion_tokens, events, MEMORY // 100)

    def _model(self, permit: Permit) -> _Model:
        key = _key(permit)
        model = self._models.get(key)
        if model is None:
            if len(self._models) >= REMEMBERED:
                self._models.clear()
            model = self._models[key] = _Model()
        return model

    def _counted(self, call: Call, octets: int) -> int | None:
        text, part = _text(call)
        counted = self._count(text)
        return None if counted is None or not part else _believed(-(-counted * octets // part), octets)


def _key(permit: Permit) -> tuple[OrgId, str, str]:
    return permit.tenant.id, permit.alias.model, permit.call.task._value_


def _measured(call: Call, least: int = 0) -> tuple[int, int]:
    """Bytes of text that the call sends, as JSON, and the tokens of what is no text: tokens themselves, images in
    messages of more than `least` bytes."""
    octets = known = 0
    fields = call.fields
    chat = call.task is _CHAT
    if chat and len(said := fields.get("messages", b"")) <= least and _BESIDE.isdisjoint(fields):
        return len(said), 0  # as nearly all that is measured roughly
    for name in _TEXT[call.task._value_]:
        raw = fields.get(name)
        if raw is None:
            continue
        size = len(raw)
        if chat:
            if size > least and name == "messages" and (size > LOOKED_INTO or _in_parts(raw)):
                data, images = _images(bytes(raw))
                size -= data
                known += images * IMAGE_TOKENS
        elif (numbers := _numbers(raw)) is not None:
            size = 0
            known += numbers
        octets += size
    return octets, known


def _in_parts(messages: Raw) -> bool:
    """Whether one of them is a list of parts, which it has to be to have an image."""
    for one in _messages(messages):  # noqa: SIM110 (a generator takes as long as all the rest)
        if memoryview(one.content)[0] == _LIST:
            return True
    return False


def _images(messages: bytes) -> tuple[int, int]:
    """Bytes of messages that are the data of images, and how many images there are.

    Data is what a provider reads as such, and nothing else: from its beginning to its end the value of a member
    that is named for it.
    """
    number = start = octets = 0
    rest = []
    at = messages.find(_MEDIUM)
    for _ in range(2 * MOST_IMAGES):  # each has its type, and its member of the same name
        if at < 0:
            break
        found = _PART.match(messages, at)
        if found is not None:
            number += 1
            at = found.end()
            if found[1] and number <= MOST_IMAGES:
                end = messages.find(b'"', at)
                if not messages[at:end].translate(None, _BASE64):
                    rest.append(messages[start:at])
                    octets += end - at
                    at = start = end
        at = messages.find(_MEDIUM, at + 1)
    else:
        number = MOST_IMAGES  # rather than to look further
    text = b"".join([*rest, messages[start:]])
    if _ESCAPE in text:
        number += sum(map(text.count, _ESCAPED))
    return octets, min(number, MOST_IMAGES)


def _numbers(raw: Raw) -> int | None:
    """How many tokens a prompt is that is given as numbers, one list or several; None for text."""
    if memoryview(raw)[0] != _LIST:
        return None
    items = bytes(raw)
    return None if b'"' in items else items.count(b",") + 1


def _text(call: Call) -> tuple[str, int]:
    """Of the call's text as much as is counted, and how many bytes of it that is, as JSON. That all of it can be
    read is known since it was decoded."""
    parts = [bytes(call.fields[name]) for name in _TEXT[call.task._value_] if name in call.fields]
    octets = sum(map(len, parts))
    if octets <= SAMPLE:
        return "\n".join([text for part in parts for text in texts(part)]), octets
    both = _ends(b"\n".join(map(_ends, parts)))
    plain = both.replace(b"\\n", b"\n").replace(b"\\t", b"\t").replace(b'\\"', b'"')
    return plain.decode(errors="ignore"), len(both)


def _ends(data: bytes) -> bytes:
    """The beginning and the end, if it is long."""
    return data if len(data) <= SAMPLE else data[: SAMPLE // 2] + data[-SAMPLE // 2 :]
