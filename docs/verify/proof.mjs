// The second verifier's part for the proof of one entry (c2sp.org/tlog-proof): written from docs/reference/audit-log.md
// ("A proof"), that specification and RFC 6962, and from nothing else. It runs in a browser and in Node, as verify.mjs.

import { Refusal, insist, parseCanonical, utf8 } from "./canonical.mjs";
import { judgePolicy, openCheckpoint, quoted, readLogKey, readPolicy, unbase64 } from "./note.mjs";
import { sha256 } from "./sha256.mjs";
import { HASH, leafHash } from "./tree.mjs";

const HEADER = "c2sp.org/tlog-proof@v1";
const PROOF_MAX = 256 * 1024;
const NODE = new Uint8Array([1]);
const ALONE = "that everybody was shown the same log: as far as is known here the operator alone signed it";

/**
 * Judge one proof. Never throws for what the proof holds.
 *
 * @param bytes the file
 * @param known what the auditor has apart from it: {key: the log's key, witnesses: bytes of a policy, entry: bytes of the
 *   entry's line}. A key, or a policy that lists the log, is needed.
 * @returns {ok, log, index, entries, entry: the line or null, faults: [text], proven: [text], unproven: [text]}; `index`
 *   and `entries`, how many the checkpoint is over, are -1 when there are none to read
 */
export async function verifyProof(bytes, known = {}) {
  const verdict = { ok: false, log: "", index: -1, entries: -1, entry: null, faults: [], proven: [], unproven: [] };
  const policy = known.witnesses ? await refused(verdict, () => readPolicy(known.witnesses)) : null;
  const proof = verdict.faults.length ? null : await refused(verdict, () => readProof(bytes));
  if (!proof) return verdict;
  const checkpoint = await refused(verdict, () => open(proof.note, known.key, policy));
  if (!checkpoint) return verdict;
  Object.assign(verdict, { log: checkpoint.origin, index: Number(proof.index), entries: Number(checkpoint.size) });
  if (policy) {
    const words = await refused(verdict, () => judgePolicy(policy, proof.note));
    if (words && policy.quorum !== "none") verdict.proven.push(words);
  }
  if (!policy || policy.quorum === "none") verdict.unproven.push(ALONE);
  await refused(verdict, () => {
    const given = known.entry && known.entry.at(-1) === 10 ? known.entry.subarray(0, -1) : known.entry;
    const line = given ?? proof.extra;
    insist(line?.length, "the proof does not hold the entry: give it apart");
    insist(!given || !proof.extra || same(given, proof.extra), "the entry that was given is not the one of the proof");
    judgeEntry(line, proof, checkpoint);
    verdict.entry = utf8(line);
  });
  verdict.ok = verdict.faults.length === 0;
  return verdict;
}

async function refused(verdict, work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    verdict.faults.push(error.message);
    return null;
  }
}

/** {index: BigInt, hashes: [bytes], note, extra: bytes or null} */
function readProof(bytes) {
  insist(bytes.length <= PROOF_MAX, `it is longer than ${PROOF_MAX} bytes`);
  const text = utf8(bytes);
  const gap = text.indexOf("\n\n");
  insist(gap >= 0, "it has no checkpoint: it was cut off");
  const lines = text.slice(0, gap).split("\n");
  insist(lines.shift() === HEADER, `its first line is not ${HEADER}`);
  const extra = lines[0]?.startsWith("extra ") ? unbase64(lines.shift().slice(6), "its extra data") : null;
  insist(extra === null || extra.length, "its extra data is empty, and would then not be there");
  const [, index] = /^index (0|[1-9][0-9]{0,18})$/.exec(lines.shift() ?? "") ?? [];
  insist(index !== undefined, "it does not say the entry's index");
  const hashes = lines.map((line) => unbase64(line, "a hash of it"));
  insist(hashes.length <= 64 && hashes.every((hash) => hash.length === HASH), "its hashes are none, or too many");
  return { index: BigInt(index), hashes, note: text.slice(gap + 2), extra };
}

/** The checkpoint in the proof, signed by the key given or by one that the policy lists. */
async function open(note, key, policy) {
  const keys = key ? [readLogKey(key)] : (policy?.logs ?? []);
  insist(keys.length, "nothing says whose signature counts: give the log's key, or a policy that lists the log");
  let last;
  for (const one of keys) {
    try {
      const found = await openCheckpoint(note, one);
      insist(found.origin === one.name, `the checkpoint is of ${quoted(found.origin)}, and the key of ${quoted(one.name)}`);
      return found;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      last = error;
    }
  }
  throw last;
}

function judgeEntry(line, { index, hashes }, { origin, size, root }) {
  insist(index < size, `there is no entry ${index} among the ${size} that the checkpoint signs`);
  const found = climb(leafHash(line), index, size, hashes);
  const wrong = `the entry is not entry ${index} of the ${size} that the checkpoint signs: it or the proof was changed`;
  insist(found && same(found, unbase64(root, "its root")), wrong);
  const entry = parseCanonical(utf8(line), line.length);
  const [own, org] = [entry.get("index"), entry.get("org")];
  insist(typeof own === "number" && BigInt(own) === index, `the entry calls itself another than entry ${index}`);
  const fits = typeof org === "string" && origin.endsWith(`/audit/${org}`);
  insist(fits, `the entry belongs to another organization than the log ${quoted(origin)}`);
}

/** The root that PATH(index, D[size]) leads to, as RFC 6962 section 2.1.1 splits the tree; null when it does not fit. */
function climb(leaf, index, size, hashes) {
  if (size === 1n) return hashes.length ? null : leaf;
  if (!hashes.length) return null;
  let half = 1n;
  while (half * 2n < size) half *= 2n;
  const sibling = hashes.at(-1);
  const left = index < half;
  const below = climb(leaf, left ? index : index - half, left ? half : size - half, hashes.slice(0, -1));
  if (below === null) return null;
  return left ? sha256(NODE, below, sibling) : sha256(NODE, sibling, below);
}

function same(one, other) {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
