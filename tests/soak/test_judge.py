"""The judge of the soak finds each thing that could be wrong, in books that are otherwise right."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.soak.judge import GROWTH_MB, Verdict, judge
from tests.soak.storm import CANCEL, FAIL, HTTP1_IDS, WHOLE, Done, Upstream, read_storm, read_upstream

# 0 to 10 are answered; 11 to 18 are cancelled: 11 never sent, 12 ended there, the others reset there.
DONE = {n: Done(WHOLE, 200) for n in range(11)} | {n: Done(CANCEL, 0) for n in range(11, 19)}


class Books:
    """What everybody wrote down after a soak of nineteen requests, to be falsified by a test."""

    def __init__(self) -> None:
        self.done = dict(DONE)
        self.upstream = Upstream(
            opened=Counter(set(DONE) - {11}),
            ended=Counter({*range(11), 12}),
            reset=Counter(range(13, 19)),
            connections=4,
        )
        self.entries = [entry(number) for number in DONE]
        self.growth_mb = 0.5

    def judged(self) -> Verdict:
        return judge(
            self.done,
            self.upstream,
            self.entries,
            asked=19,
            share=0.44,
            new_connections=0,
            growth_mb=self.growth_mb,
            seconds=2,
        )


def entry(number: int, **fields: Any) -> dict[str, Any]:
    cancelled = number > 10
    found = {
        "request_id": f"soak-{number:08}",
        "outcome": "cancelled_by_client" if cancelled else "served",
        "sent": number != 11,
        "prompt_tokens": 0 if number == 11 else 20,
        "completion_tokens": 0,
    }
    return {**found, **fields}


def test_books_that_are_right() -> None:
    verdict = Books().judged()
    assert verdict.faults == []
    assert verdict.figures["requests"] == 19
    assert verdict.figures["cancelled"] == verdict.figures["reset_or_done"] == 8
    assert verdict.figures["cancelled_before_sent"] == 1
    assert verdict.figures["requests_per_s"] == 10


def wrong_dangling(books: Books) -> None:
    del books.upstream.reset[13]


def wrong_spurious(books: Books) -> None:
    del books.upstream.ended[3]
    books.upstream.reset[3] += 1


def wrong_lost(books: Books) -> None:
    del books.upstream.ended[3]
    books.upstream.lost[3] += 1


def wrong_innocent(books: Books) -> None:
    books.done[4] = Done(FAIL, 502)


def wrong_twice(books: Books) -> None:
    books.upstream.opened[5] += 1


def wrong_entry_missing(books: Books) -> None:
    books.entries.pop()


def wrong_entry_twice(books: Books) -> None:
    books.entries.append(entry(6))


def wrong_entry_of_nobody(books: Books) -> None:
    books.entries.append(entry(77))


def wrong_outcome(books: Books) -> None:
    books.entries[7] = entry(7, outcome="cancelled_by_client")


def wrong_charge(books: Books) -> None:
    books.entries[11] = entry(11, prompt_tokens=20)


def wrong_word(books: Books) -> None:
    books.entries[14] = entry(14, sent=False, prompt_tokens=0)


def wrong_growth(books: Books) -> None:
    books.growth_mb = GROWTH_MB + 0.1


def wrong_share(books: Books) -> None:
    for number in (11, 12):
        books.done[number] = Done(WHOLE, 200)
        books.entries[number] = entry(number, outcome="served")


def wrong_count(books: Books) -> None:
    for book in (books.done, books.upstream.opened, books.upstream.ended):
        del book[0]
    del books.entries[0]


@pytest.mark.parametrize(
    ("falsify", "words"),
    [
        (wrong_dangling, "left open upstream"),
        (wrong_spurious, "nobody had cancelled them"),
        (wrong_lost, "nobody had cancelled them"),
        (wrong_innocent, "failed, though nobody"),
        (wrong_twice, "sent upstream twice"),
        (wrong_entry_missing, "not exactly one audit entry"),
        (wrong_entry_twice, "not exactly one audit entry"),
        (wrong_entry_of_nobody, "not exactly one audit entry"),
        (wrong_outcome, "says something else"),
        (wrong_charge, "yet charged"),
        (wrong_word, "says they were not sent"),
        (wrong_growth, "the worker grew"),
        (wrong_share, "too few or too many"),
        (wrong_count, "only 18 of 19"),
    ],
)
def test_books_that_are_wrong(falsify: Any, words: str) -> None:
    books = Books()
    falsify(books)
    assert any(words in fault for fault in books.judged().faults), books.judged().faults


def test_an_http1_request_that_nobody_had_looked_at_needs_no_entry() -> None:
    books = Books()
    books.done[HTTP1_IDS] = Done(CANCEL, 0)
    verdict = books.judged()
    assert verdict.faults == []
    assert verdict.figures["unheard"] == 1


def test_journals() -> None:
    assert read_storm("whole 1 200\ncancel 2 0\nfail 3 502\n") == {
        1: Done(WHOLE, 200),
        2: Done(CANCEL, 0),
        3: Done(FAIL, 502),
    }
    upstream = read_upstream("accept 1 5\nopen 1 10\nopen 2 11\nopen 3 11\nend 1 12\nreset 2 13\naccept 2 14\n")
    assert (upstream.connections, upstream.dangling) == (2, [3])
