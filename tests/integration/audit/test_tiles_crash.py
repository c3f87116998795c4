"""kill -9 while tiles are written, and tiles that are lost or torn afterwards: every entry can be proved again."""

from __future__ import annotations

import random
from pathlib import Path

from gateway.audit.merkle import leaf_hash
from gateway.audit.note import Checkpoint, open_note, parse_checkpoint
from gateway.audit.proofs import EMPTY_ROOT, consistency, inclusion, root, verify_consistency, verify_inclusion
from gateway.audit.sequencer import Sequencer
from tests.fakes.audit import ACME, SIGNER, at_once
from tests.integration.audit.test_crash import run_and_kill

KILLS = 4
BATCHES = 220
"""Of three entries, half of them acme's: more than a tile a kill."""


async def test_what_was_signed_before_a_kill_is_proved_after_it(tmp_path: Path) -> None:
    rng = random.Random(21)
    place = tmp_path / "orgs" / "acme"
    old = Checkpoint(SIGNER.origin(ACME), 0, EMPTY_ROOT)
    for kill in range(KILLS):
        run_and_kill("sequence", tmp_path, f"boot{kill}", BATCHES + rng.randint(0, 40))
        kept = parse_checkpoint((place / "checkpoint").read_text().partition("\n\n")[0] + "\n")
        spoilt = spoil(place, rng)
        sequencer = Sequencer(tmp_path, SIGNER, segment_bytes=20_000, pause=at_once)
        await sequencer.open()
        note = await sequencer.checkpoint(ACME)
        new = parse_checkpoint(open_note(note, SIGNER.key(ACME)))
        log = (await sequencer.opened(ACME)).log
        assert new.size == log.size > old.size
        for before in (old, kept):
            link = consistency(log.tiles, before.size, new.size)
            assert verify_consistency(before.size, before.root, new.size, new.root, link)
        assert root(log.tiles, new.size) == new.root
        hashes = [leaf_hash(line[:-1]) for line in log.lines(0, new.size)]
        for index in rng.sample(range(new.size), 40):
            assert verify_inclusion(
                hashes[index], index, new.size, inclusion(log.tiles, index, new.size), new.root
            )
        assert b"".join(log.tiles.leaves(0, new.size)) == b"".join(hashes)
        assert all(path.read_bytes() != spoilt[path] for path in spoilt)
        old = new
        await sequencer.close()
    assert len(list(place.glob("tile/0/???"))) == old.size // 256 > 3


def spoil(place: Path, rng: random.Random) -> dict[Path, bytes]:
    """As a power cut does: a tile is gone, another is zeros or half there. What stands there now, of each."""
    tiles = sorted(place.glob("tile/*/???"))
    left: dict[Path, bytes] = {}
    for path in rng.sample(tiles, min(2, len(tiles))):
        data = rng.choice([b"", bytes(8192), path.read_bytes()[:4096]])
        path.write_bytes(data)
        left[path] = data
    if tiles:
        rng.choice(tiles).with_suffix(".tmp").write_bytes(b"torn")
        gone = rng.choice(tiles)
        gone.unlink()
        left.pop(gone, None)
    return left
