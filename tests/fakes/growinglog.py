"""A log's tree and key without the log: it signs any tree one likes, also those that an honest log never would."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.merkle import HashTree, leaf_hash
from gateway.audit.note import Checkpoint, VerifierKey, sign
from gateway.audit.proofs import consistency, root
from gateway.audit.witness_wire import submission

LOG_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


class GrowingLog:
    """`size` leaves; from leaf `forked` on they are others than those of a log that was not forked; `leaf` says
    which ones."""

    def __init__(
        self,
        size: int = 40,
        origin: str = "gateway.example/audit/acme",
        forked: int | None = None,
        private: Ed25519PrivateKey = LOG_PRIVATE,
        leaf: int = 1,
    ) -> None:
        self.origin = origin
        self._private = private
        other = size if forked is None else forked
        self._tree = HashTree(
            leaf_hash(b"%s %d %d" % (origin.encode(), n, leaf * (n >= other))) for n in range(size)
        )

    @property
    def key(self) -> VerifierKey:
        return VerifierKey(self.origin, self._private.public_key().public_bytes_raw())

    def note(self, size: int) -> str:
        return sign(Checkpoint(self.origin, size, self.root(size)).text(), self.origin, self._private)

    def root(self, size: int) -> bytes:
        return root(self._tree, size)

    def proof(self, old: int, new: int) -> list[bytes]:
        return consistency(self._tree, old, new)

    def submission(self, old: int, new: int) -> bytes:
        """What an honest log would post."""
        return submission(old, self.proof(old, new), self.note(new))
