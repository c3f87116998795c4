"""Which entries of a log are wanted, told from the few members of an entry that can be asked for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Set

from msgspec import Struct, field, json


class Facts(Struct, frozen=True):
    """What a selection looks at. Decoding only this takes a quarter of decoding the entry."""

    at: int = field(name="@timestamp")
    action: str
    actor: str
    actor_org: str = ""
    outcome: str = ""
    model: str = ""
    client: str = ""


facts = json.Decoder(Facts).decode
"""Of a stored line. Raises `msgspec.DecodeError` for what is none."""
Wanted = Callable[[Facts], bool]


class Selection(Struct, frozen=True):
    """All that is given has to match. Texts: '' for any; `actor` may be several, between commas. `since`
    (inclusive) and `until` (exclusive) are Unix milliseconds, 0 for no bound: of what entries say, whose clock may
    have gone backwards between two of them."""

    action: str = ""
    actor: str = ""
    outcome: str = ""
    model: str = ""
    client: str = ""
    since: int = 0
    until: int = 0

    def asked(self) -> dict[str, str | int]:
        """What is given, as an entry's detail says it: times in Unix seconds."""
        texts = {name: getattr(self, name) for name in ("action", "actor", "outcome", "model", "client")}
        times = {"since": self.since // 1_000, "until": self.until // 1_000}
        return {name: value for name, value in {**texts, **times}.items() if value}

    def matcher(self, org: str, actors: Set[tuple[object, object]]) -> Wanted:
        """For entries of the log of `org`; `actors`: organization and name of whom `actor` means."""
        exact = [
            (name, value) for name in ("action", "outcome", "model", "client") if (value := getattr(self, name))
        ]
        actor, since, until = bool(self.actor), self.since, self.until

        def wanted(entry: Facts) -> bool:
            return (
                since <= entry.at
                and (not until or entry.at < until)
                and all(getattr(entry, name) == value for name, value in exact)
                and (not actor or (entry.actor_org or org, entry.actor) in actors)
            )

        return wanted
