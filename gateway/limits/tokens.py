"""How many tokens a request is: before it is sent, and where its provider has not said.

A model's provider knows best: what it reports of some prompts says how many tokens a byte of others is. Until it
has reported, and where it never does, a real tokenizer counts (`gateway.limits.tokenizer`), so that nothing rests
on a rule of thumb. Why not every prompt is counted: docs/design/0018-counting-tokens.md.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

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
"""One image given as a data URL: OpenAI's take from 85 to about 1,500, whatever their bytes."""

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

BELIEVED = 4
"""Tokens for one byte of a prompt or one event of an answer, at most."""

REMEMBERED = 4_096
"""Models of which something is known, by organization, the provider's name and task."""

# By the task's plain text, as all that is looked up here: to hash a member of an enumeration is a call.
_TEXT = {
    Action.COMPLETE.value: ("prompt", "suffix"),
    Action.CHAT.value: ("messages", "tools", "functions", "response_format"),
    Action.EMBED.value: ("input",),
}
_CHAT = Action.CHAT
_DATA_URL = b";base64,"
_LIST = ord("[")


class Ratio:
    """Tokens for so many of something else, as last seen."""

    __slots__ = ("seen", "times", "tokens")

    def __init__(self) -> None:
        self.tokens = self.seen = self.times = 0

    def add(self, tokens: int, seen: int, memory: int = MEMORY) -> None:
        """No report counts for more than is believed of any: whoever hides a long prompt from what is measured
        would otherwise make everybody's dear."""
        self.tokens += min(tokens, BELIEVED * seen)
        self.seen += seen
        self.times += 1
        if self.seen > memory:
            self.seen >>= 1
            self.tokens = min(self.tokens >> 1, BELIEVED * self.seen)

    def of(self, seen: int) -> int:
        """Rounded up, and at most `BELIEVED` for each: what an upstream reports is believed within reason."""
        return -(-seen * self.tokens // self.seen) if self.seen else 0


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

    def of_prompt(self, permit: Permit) -> int:
        """Tokens of what the call sends. Exact for a list of tokens."""
        call = permit.call
        octets, known = _measured(call)
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
        return None if counted is None or not part else -(-counted * octets // part)


def _key(permit: Permit) -> tuple[OrgId, str, str]:
    return permit.tenant.id, permit.alias.model, permit.call.task._value_


def _measured(call: Call) -> tuple[int, int]:
    """Bytes of text that the call sends, as JSON, and the tokens of what is no text: images, tokens themselves."""
    octets = known = 0
    fields = call.fields
    chat = call.task is _CHAT
    for name in _TEXT[call.task._value_]:
        if name not in fields:
            continue
        raw = fields[name]
        size = len(raw)
        if chat:
            if size > SAMPLE:  # an image is seldom smaller, and looking for one costs more than it may
                data, images = _images(bytes(raw))
                size -= data
                known += images * IMAGE_TOKENS
        elif (numbers := _numbers(raw)) is not None:
            size = 0
            known += numbers
        octets += size
    return octets, known


def _images(raw: bytes) -> tuple[int, int]:
    """Bytes in data URLs, and how many there are."""
    octets = number = 0
    at = raw.find(_DATA_URL)
    while at >= 0 and number < MOST_IMAGES:
        end = raw.find(b'"', at)
        octets += (end if end >= 0 else len(raw)) - at
        number += 1
        at = raw.find(_DATA_URL, end) if end >= 0 else -1
    return octets, number


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
