"""What somebody may send so that a request which is broken off is charged for less than it is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.data.openai import decode_call
from gateway.exchange import Permit, Usage
from gateway.limits import tokens as module
from gateway.limits.tokenizer import Tokenizer
from gateway.limits.tokens import EXACT, HEARD, IMAGE_TOKENS, MEMORY, SHARE, SPARSE, Ratio, Tokens
from policies.facts import Action
from tests.unit.limits.test_tokens import permit

SOURCE = Path(module.__file__).read_text()
DATA = "data:image/png;base64,"


@pytest.fixture(scope="module")
def real() -> Tokenizer:
    """What a provider has, too."""
    counting = Tokenizer()
    counting.begin().join(timeout=30)
    return counting


def counted(real: Tokenizer, text: str) -> int:
    found = real.count(text)
    assert found
    return found


def chat(content: object) -> Permit:
    return permit(Action.CHAT, messages=[{"role": "user", "content": content}])


def written(messages: bytes) -> Permit:
    """As JSON that `json.dumps` would not write."""
    call = decode_call(Action.CHAT, b'{"model":"code","messages":' + messages + b"}")
    return msgspec.structs.replace(chat(""), call=call)


def reported(tokens: Tokens, asked: Permit, found: int, times: int) -> None:
    for _ in range(times):
        tokens.learn(asked, Usage(found, 5, counted=False), 0)


def test_what_is_reserved_does_not_look_for_images_in_short_messages() -> None:
    """What is charged does: the difference is a debt."""
    tokens = Tokens(lambda text: None)
    part = b'{"type":"image_url","image_url":{"url":"https://images.test/1.png"}}'
    short = written(b'[{"role":"user","content":[' + b",".join([part] * 5) + b"]}]")
    assert tokens.of_prompt(short, roughly=True) < IMAGE_TOKENS
    assert tokens.of_prompt(short) >= 5 * IMAGE_TOKENS
    long = written(b'[{"role":"user","content":[' + b",".join([part] * 90) + b"]}]")
    assert tokens.of_prompt(long, roughly=True) == tokens.of_prompt(long) >= 90 * IMAGE_TOKENS


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    "start",
    [
        ";base64,",
        DATA,
        '"' + DATA,
        f'"url": "{DATA}',
        '{"image_url": {"url": "' + DATA,
        '\\"image_url\\": {\\"url\\": \\"' + DATA,
    ],
)
def test_text_is_no_image_whatever_stands_in_it(real: Tokenizer, start: str, learned: bool) -> None:
    text = start + SOURCE.replace('"', "'") * 4
    truth = counted(real, text)
    tokens = Tokens(real.count)
    if learned:
        reported(tokens, chat(SOURCE), counted(real, SOURCE), EXACT)
    for asked in (chat(text), chat([{"type": "text", "text": text}]), chat([{"type": "text", "text": "x"}, text])):
        assert 0.8 * truth < tokens.of_prompt(asked) < 1.3 * truth + 100


@pytest.mark.parametrize(
    "part",
    [
        b'{"type":"image_url","image_url":{"url":"data:image/png;base64,hello there %s"}}',
        b'{"type":"image_url","image_url":{"url":"data:text/plain;base64,%s"}}',
        b'{"type":"text","text":"data:image/png;base64,%s"}',
        b'{"type":"x","url":"data:image/png;base64,%s"}',
        b'{"type":"x","text":"image_url","url":"data:image/png;base64,%s"}',
    ],
)
def test_only_an_images_data_are_left_out(part: bytes) -> None:
    tokens = Tokens(lambda text: None)
    size = 40_000
    assert tokens.of_prompt(written(b'[{"role":"user","content":[' + part % (b"A" * size) + b"]}]")) > size // 4


def test_what_is_told_of_tools_has_no_images() -> None:
    of_url = {"parameters": {"image_url": {"url": DATA + "A" * 40_000}}}
    asked = permit(Action.CHAT, messages=[{"role": "user"}], tools=[{"function": of_url}])
    assert Tokens(lambda text: None).of_prompt(asked) > 10_000


HTTPS = b'"https://a.example/1.png"'


@pytest.mark.parametrize(
    "member",
    [
        b'"image_url":{"url":' + HTTPS + b"}",
        b'"image_url" \n: {"detail": "low", "url": ' + HTTPS + b"}",
        b'"image_url"' + b" " * 500 + b":{" + b" " * 500 + b'"url":' + HTTPS + b"}",
        b'"image_url":' + HTTPS,
        b'"video_url":{"url":' + HTTPS + b"}",
        b'"image_ur\\u006c":{"url":' + HTTPS + b"}",
        b'"image_ur\\u006C":{"url":' + HTTPS + b"}",
        b'"\\u0069mage_u\\u0072l":{"url":' + HTTPS + b"}",
        b'"image_\\u0075rl":{"url":' + HTTPS + b"}",
        b'"image\\u005furl":{"url":' + HTTPS + b"}",
        b'"image\\u005Furl":{"url":' + HTTPS + b"}",
        b'"image_url":{"url":"data:image/png;base64,AAAA"}',
        b'"image_url":{"detail":"low", "url" : "data:image/svg+xml;base64,AA=="}',
        b'"image_url":{"url":"data:image\\/png;base64,AA\\/A"}',
    ],
)
@pytest.mark.parametrize("others", [0, 100_000])
def test_each_image_counts_wherever_it_is_from(member: bytes, others: int) -> None:
    tokens = Tokens(lambda text: None)
    part = b'{"type":"image_url",' + member + b"}"
    first = b'{"role":"system","content":"' + b"x" * others + b'"}'
    for number in (1, 7):
        messages = b"[" + first + b',{"role":"user","content":[' + b",".join([part] * number) + b"]}]"
        images = number * IMAGE_TOKENS
        assert images <= tokens.of_prompt(written(messages)) <= images + others // 4 + number * 300 + 50


@pytest.mark.parametrize("escape", ["", "\\/"])
def test_the_data_of_an_image_count_for_nothing_more(escape: str) -> None:
    part = b'{"type":"image_url","image_url":{"detail":"high","url":"%s"}}'
    data = (DATA.replace("/", escape or "/") + ("A" * 60 + (escape or "/")) * 5_000).encode()
    messages = b'[{"role":"user","content":[%s,%s]}]' % (part % data, part % data)
    assert Tokens(lambda text: None).of_prompt(written(messages)) < 2 * IMAGE_TOKENS + 100


SPACES = b'[{"role":"user","content":"' + b"\\u0020" * 300_000 + b'"}]'


def test_what_is_long_on_purpose_makes_no_prompt_cheap(real: Tokenizer) -> None:
    """At least a fifth of what this source really is when nothing but such reports has been heard: one token for
    16 bytes. At least a third when as many had been heard of others."""
    teaching = written(SPACES)
    prompts = [SOURCE[at:] * 8 for at in range(0, 400, 100)]
    truth = sum(counted(real, text) for text in prompts)
    for honest, part in ((0, 5), (64, 3)):
        tokens = Tokens(real.count)
        usual = chat(SOURCE)
        reported(tokens, usual, counted(real, SOURCE), honest * HEARD)
        reported(tokens, teaching, 2_345, 64 * HEARD)
        charged = sum(tokens.of_prompt(chat(text)) for text in prompts)
        assert truth <= part * charged
        assert charged < 2 * truth


def test_nor_does_what_was_counted_here(real: Tokenizer) -> None:
    """The dearest text has a token for each byte: a sixteenth of that is charged whatever its ends are."""
    tokens = Tokens(real.count)
    middle = "\u0d9e\u1c80" * 10_000
    hidden = chat(" " * 4_000 + middle + " " * 4_000)
    truth = counted(real, middle)
    for _ in range(3 * EXACT):
        assert truth <= SPARSE * tokens.of_prompt(hidden)


def test_a_long_prompt_does_not_outweigh_the_others() -> None:
    ratio = Ratio()
    for _ in range(200):
        ratio.add(1_000, 4_000)
    before = ratio.of(1_000_000)
    ratio.add(0, 8_000_000)
    assert ratio.of(1_000_000) > 0.9 * before
    ratio.add(40_000_000, 10_000_000)
    assert ratio.of(1_000_000) < 1.4 * before
    assert ratio.seen <= 800_000 + 2 * MEMORY // SHARE


TOLD = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 400)), min_size=EXACT, max_size=3 * EXACT)


@given(TOLD, st.text(max_size=300))
def test_nobody_can_teach_less_than_a_token_for_sixteen_bytes(told: list[tuple[int, int]], text: str) -> None:
    tokens = Tokens(lambda text: 0)
    for found, spaces in told:
        reported(tokens, chat(" " * spaces), found, 1)
    asked = chat(text)
    assert len(asked.call.fields["messages"]) <= SPARSE * tokens.of_prompt(asked)
