"""Policies of witnesses: the specification's example, every fault with its line, and what a quorum is."""

from __future__ import annotations

from itertools import combinations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.cosignature import cosign, key_of
from gateway.audit.note import split_note
from gateway.audit.policy import POLICY_MAX, PolicyError, judge, parse_policy
from tests.fakes.audit import ACME, GLOBEX, SIGNER

AT = 1_763_690_000
NOTE = SIGNER.checkpoint(ACME, 3, bytes(32))
LOG = str(SIGNER.key(ACME))
NAMES = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
PRIVATE = {name: Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n, name in enumerate(NAMES, 1)}
KEY = {name: str(key_of(f"{name}.example/w", private)) for name, private in PRIVATE.items()}

# C2SP tlog-policy, "Example policy", with keys in the places that are elided there
EXAMPLE = f"""log {LOG}

witness X1 {KEY["X1"]}
witness X2 {KEY["X2"]}
witness X3 {KEY["X3"]}
group X-witnesses 2 X1 X2 X3

witness Y1 {KEY["Y1"]}
witness Y2 {KEY["Y2"]}
witness Y3 {KEY["Y3"]}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def line(name: str, note: str = NOTE) -> str:
    return cosign(split_note(note)[0], f"{name}.example/w", PRIVATE[name], AT)


def test_the_published_example_says_what_it_means() -> None:
    policy = parse_policy(EXAMPLE)
    assert [group.need for group in policy.groups] == [2, 1, 2]
    for count in range(7):
        for names in combinations(NAMES, count):
            meant = len(set(names) & {"X1", "X2", "X3"}) >= 2 and bool(set(names) & {"Y1", "Y2", "Y3"})
            assert policy.met(names) is meant


def test_a_policy_writes_and_reads_back_the_same() -> None:
    policy = parse_policy(EXAMPLE.replace(KEY["X1"], f"{KEY['X1']} https://x1.example/"))
    assert parse_policy(policy.text()) == policy
    other = parse_policy(policy.text(SIGNER.key(GLOBEX)))
    assert [log.key for log in other.logs] == [SIGNER.key(GLOBEX)]
    assert [one.key for one in other.witnesses] == [one.key for one in policy.witnesses]
    assert "https" not in other.text()


def test_space_comments_and_bytes_are_read() -> None:
    text = f"\t# héllo # \n\n  witness\t \twörld {KEY['X1']}\thttps://x.example  \n#\nquorum \t wörld"
    policy = parse_policy(text.encode())
    assert policy == parse_policy(text)
    assert policy.quorum == "wörld"
    assert policy.witnesses[0].url == "https://x.example"


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("", 0, "no quorum line"),
        ("# only\n", 0, "no quorum line"),
        ("quorum none\nquorum none\n", 2, "has one"),
        ("quorum\n", 1, "'quorum NAME'"),
        ("quorum a b\n", 1, "'quorum NAME'"),
        ("quorum w\n", 1, "no witness or group"),
        (f"quorum w\nwitness w {KEY['X1']}\n", 1, "no witness or group"),
        ("\n\nquota none\n", 3, "'quota' is none of"),
        ("Quorum none\n", 1, "'Quorum' is none of"),
        ("log\n", 1, "'log VKEY'"),
        (f"log {LOG} a b\n", 1, "'log VKEY'"),
        (f"log {KEY['X1']}\n", 1, "not an Ed25519 note key"),
        (f"log {LOG}\nlog {SIGNER.key(GLOBEX)}\n", 2, "in line 1 already"),
        ("witness w\n", 1, "'witness NAME VKEY'"),
        (f"witness w {KEY['X1']} u v\n", 1, "'witness NAME VKEY'"),
        (f"witness w {LOG}\n", 1, "it is a log's"),
        ("witness w nonsense\n", 1, "form"),
        (f"witness none {KEY['X1']}\n", 1, "reserved"),
        (f"witness w {KEY['X1']}\nwitness w {KEY['X2']}\n", 2, "name already, in line 1"),
        (f"witness w {KEY['X1']}\n\nwitness v {KEY['X1']}\n", 3, "in line 1 already"),
        (f"witness w {KEY['X1']}\ngroup w any w\n", 2, "name already"),
        (f"witness w {KEY['X1']}\ngroup none any w\n", 2, "reserved"),
        (f"witness w {KEY['X1']}\ngroup g any\n", 2, "with a member"),
        (f"witness w {KEY['X1']}\ngroup g some w\n", 2, "'some' is neither"),
        (f"witness w {KEY['X1']}\ngroup g 0 w\n", 2, "'0' is neither"),
        (f"witness w {KEY['X1']}\ngroup g 01 w\n", 2, "'01' is neither"),
        (f"witness w {KEY['X1']}\ngroup g -1 w\n", 2, "'-1' is neither"),
        (f"witness w {KEY['X1']}\ngroup g ١ w\n", 2, "is neither"),
        (f"witness w {KEY['X1']}\ngroup g 2 w\n", 2, "2 of 1"),
        (f"witness w {KEY['X1']}\ngroup g {'9' * 5000} w\n", 2, "can never be"),
        ("group g any g\n", 1, "no witness or group of a line above"),
        (f"witness w {KEY['X1']}\ngroup g any w none\n", 2, "'none' is no witness"),
        (f"witness w {KEY['X1']}\ngroup g 2 w w\n", 2, "member already, in line 2"),
        (f"witness w {KEY['X1']}\ngroup g any w\ngroup h any w\n", 3, "member already, in line 2"),
        ("quorum none\r\n", 1, "control character '\\r'"),
        ("\nquorum\x0bnone\n", 2, "control character '\\x0b'"),
        ("quorum none\x7f\n", 1, "control character '\\x7f'"),
        ("quorum\u00a0none\n", 1, "is none of"),
        ("#" * (POLICY_MAX + 1), 0, "longer than"),
        (b"#\n# \xff\n", 2, "not UTF-8"),
    ],
)
def test_a_fault_is_named_with_its_line(text: str | bytes, where: int, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert caught.value.line == where
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"line {where}: ") is bool(where)


def test_groups_as_deep_as_a_file_can_hold_are_judged() -> None:
    text = f"witness g0 {KEY['X1']}\n" + "".join(f"group g{n + 1} all g{n}\n" for n in range(9_000))
    policy = parse_policy(text + "quorum g9000\n")
    assert policy.met(["g0"])
    assert not policy.met([])


def test_a_quorum_is_judged_in_words() -> None:
    policy = parse_policy(EXAMPLE)
    one = judge(policy, NOTE + line("X1"))
    assert not one.met
    assert one.missing == ("X2", "X3", "Y1", "Y2", "Y3")
    assert one.words == (
        "the quorum X-and-Y is not met: X1 at 2025-11-21T01:53:20Z; without a cosignature of X2, X3, Y1, Y2, Y3"
    )
    enough = judge(policy, NOTE + line("X3") + line("Y2") + line("X1"))
    assert enough.met
    assert [(seen.witness, seen.at) for seen in enough.cosigned] == [("X1", AT), ("X3", AT), ("Y2", AT)]
    assert enough.words.startswith("the quorum X-and-Y is met: X1 at 2025-11-21T01:53:20Z, X3 at ")
    assert "nobody has cosigned" in judge(policy, NOTE).words


def test_a_policy_may_ask_for_nothing_and_tells_what_there_is() -> None:
    assert judge(parse_policy("quorum none\n"), NOTE).met
    verdict = judge(parse_policy(f"witness w {KEY['X1']}\nquorum none\n"), NOTE + line("X1"))
    assert verdict.met
    assert verdict.words.endswith("there are: w at 2025-11-21T01:53:20Z")


def test_a_checkpoint_of_a_log_that_is_not_listed_counts_for_nothing() -> None:
    note = SIGNER.checkpoint(GLOBEX, 3, bytes(32))
    verdict = judge(parse_policy(EXAMPLE), note + line("X1", note) + line("X2", note) + line("Y1", note))
    assert not verdict.met
    assert verdict.fault == verdict.words == "the policy lists no log gateway.example/audit/globex"


def test_a_log_that_has_not_signed_is_a_fault_however_many_cosigned() -> None:
    text, _ = split_note(NOTE)
    note = f"{text}\n{line('X1')}{line('X2')}{line('Y1')}"
    verdict = judge(parse_policy(EXAMPLE), note)
    assert not verdict.met
    assert "not signed by" in verdict.fault
    assert judge(parse_policy(EXAMPLE.replace(f"log {LOG}", "")), note).met


@pytest.mark.parametrize(
    "note",
    [
        "nonsense",
        NOTE + line("X1") + line("X1"),
        NOTE + line("X1", SIGNER.checkpoint(ACME, 4, bytes(32))),
        NOTE + line("X1").removesuffix("\n"),
    ],
)
def test_a_doubtful_note_is_a_fault(note: str) -> None:
    verdict = judge(parse_policy(f"witness w {KEY['X1']}\nquorum none\n"), note)
    assert not verdict.met
    assert verdict.fault
    assert verdict.words == verdict.fault


def test_a_time_that_no_calendar_has_is_told_as_a_number() -> None:
    late = cosign(split_note(NOTE)[0], "X1.example/w", PRIVATE["X1"], 2**63 - 1)
    assert (
        f"w at second {2**63 - 1}" in judge(parse_policy(f"witness w {KEY['X1']}\nquorum w\n"), NOTE + late).words
    )
