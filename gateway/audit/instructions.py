"""README.txt of an evidence pack: how whoever finds one verifies it. Names no server; the same in all packs."""

from __future__ import annotations

README_TEXT = """\
This folder is an evidence pack: entries of an organization's audit log, and what is needed to verify them
without the server that they come from, and without trusting whoever made the pack.

  entries.jsonl  the entries, one line of JSON each, byte for byte as they were logged
  tile/          the hashes of the whole log's Merkle tree (c2sp.org/tlog-tiles)
  checkpoint     how many entries the log had, the tree's root, and who signed that (c2sp.org/tlog-checkpoint)
  key            the key that the log's signature is verified with (c2sp.org/signed-note)
  witnesses      if it is there: who should have cosigned the checkpoint (c2sp.org/tlog-policy)
  manifest.json  what is in the pack, and the SHA-256 of every file

Two programs that share no code verify it:

  orgate audit verify PACK --key KEY --witnesses WITNESSES
  node verify-cli.mjs --key KEY --witnesses WITNESSES PACK

PACK is this folder. KEY is the log's key, WITNESSES the policy of who has to have cosigned; each as you got it
from somebody whom you trust, and not out of this folder: whoever made the pack also chose what lies in it.
With --since-checkpoint FILE, a checkpoint that you kept from an earlier time, both also say whether the log was
cut off or written anew since then. They print what is wrong and where, and what they could not prove; the exit
code is 0 when nothing is wrong, and 1 otherwise.

A pack whose manifest has a filter holds entries that matched it. Each is proved to be in the log, at its place,
unchanged. That none that matched was left out is not proved by such a pack; it takes one without a filter.

The format, enough to write a verifier of your own, is in Orgate's documentation: reference/audit-log.md, "A
pack" and "How a pack is judged". What each check proves, and what it cannot, is in guides/auditor.md.
"""
