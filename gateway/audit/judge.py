"""One entry of a pack after the other: its bytes, its place in the log, and what was asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.audit.canonical import CanonicalError, parse
from gateway.audit.chain import GENESIS, Fault, judge, line_hash
from gateway.audit.days import Days
from gateway.audit.leaves import Leaves
from gateway.audit.manifest import Manifest
from gateway.audit.merkle import leaf_hash
from gateway.audit.pack import ENTRIES


class EntryJudge:
    """`number` of lines so far, `last` index; `days`: the daily counts that were held against the entries.

    Without a filter each line has one place. With one, its own index says which, and the tiles whether it lies;
    indexes have to rise.
    """

    def __init__(self, manifest: Manifest, leaves: Leaves) -> None:
        self.number = 0
        self.last = manifest.start - 1
        self.days = Days()
        self._manifest = manifest
        self._leaves = leaves
        self._prev = ""
        self._boots: dict[str, int] = {}

    def take(self, line: bytes) -> Iterator[Fault]:
        """What is wrong with the next line."""
        self.number += 1
        body = line.removesuffix(b"\n")
        place = self.last + 1
        try:
            entry = parse(body)
        except CanonicalError as error:
            where = self._where(None if self._manifest.filter else place)
            yield Fault(where, str(error))
            if not self._manifest.filter:
                yield from self._leaf(where, place, body)
        else:
            index = entry.get("index")
            if self._manifest.filter and type(index) is int and place <= index < self._manifest.end:
                place = index
            where = self._where(place)
            for what in self._entry(entry, place):
                yield Fault(where, what)
            yield from self._leaf(where, place, body)
        if body == line:
            yield Fault(where, "does not end with a newline: the file was cut off, or the line is too long")
        self._prev = line_hash(body)

    def _where(self, place: int | None) -> str:
        return f"{ENTRIES} line {self.number}" + ("" if place is None else f" (entry {place})")

    def _leaf(self, where: str, place: int, body: bytes) -> Iterator[Fault]:
        self.last = place
        if (wrong := self._leaves.judge(place, leaf_hash(body))) is not None:
            yield Fault(where, wrong)

    def _entry(self, entry: Mapping[str, object], place: int) -> Iterator[str]:
        manifest = self._manifest
        prev = GENESIS if place == 0 else self._prev if place == self.last + 1 and self._prev else None
        yield from judge(entry, org=manifest.org, index=place, prev=prev)
        if "spool" in entry:  # else a change of the control plane
            yield from self._repeated(entry["spool"])
        for name, wanted in manifest.filter.items():
            if not _matches(entry, name, wanted):
                yield f"does not match the filter: its `{name}` is another"
        yield from self.days.take(place, entry)

    def _repeated(self, spool: object) -> Iterator[str]:
        """A worker's receipts are numbered upwards within its boot: each is an entry once."""
        match spool:
            case [str(boot), int(seq)] if type(seq) is int:
                if seq <= self._boots.get(boot, 0):
                    yield "its receipt is an entry already, or its spool numbers go backwards"
                else:
                    self._boots[boot] = seq
            case _:
                yield "its `spool` is not a boot and a number"


def _matches(entry: Mapping[str, object], name: str, wanted: object) -> bool:
    if name in ("since", "until"):
        at = entry.get("@timestamp")
        if type(at) is not int or not isinstance(wanted, int):
            return False
        return at >= wanted * 1000 if name == "since" else at < wanted * 1000
    found = entry.get(name)
    return isinstance(found, str) and (found in wanted if isinstance(wanted, list) else found == wanted)
