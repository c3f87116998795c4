// A second verifier of Orgate's evidence packs: written from docs/reference/audit-log.md ("A pack", "How a pack is
// judged") and the standards that it names, and from nothing else. It shares no code with `orgate audit verify`.
//
// This file and those that it imports run as they are in a browser and in Node: they need WebCrypto with Ed25519, and
// nothing else. verify-cli.mjs beside them reads folders.

import { Refusal, LINE_MAX, insist, utf8 } from "./canonical.mjs";
import { Entries } from "./entries.mjs";
import { Leaves } from "./leaves.mjs";
import { readManifest } from "./manifest.mjs";
import { hex, judgePolicy, openCheckpoint, quoted, readLogKey, readPackedKey, readPolicy } from "./note.mjs";
import { Sha256, sha256 } from "./sha256.mjs";
import { isTile } from "./tree.mjs";

const MANIFEST = "manifest.json";
const ENTRIES = "entries.jsonl";
const SMALL_MAX = 64 * 1024; // bytes of any file but the entries
const FAULTS_MAX = 100;
const ADDED = "is not part of a pack: it was added";
const FILTERED = "match the filter: a pack with a filter cannot show what was left out";
const ELSEWHERE = "compare it with the one you got from the operator by other means";
const THEIRS = "the witnesses are those that the pack names: the operator chose them; give those whom you trust";
const ALONE =
  "that everybody was shown the same log: as far as is known here the operator alone signed it, and can sign a " +
  "shorter or another one; give the witnesses whom you trust";

/**
 * Judge one pack. Never throws for what the pack holds.
 *
 * @param pack where its files are: a Map of paths to bytes (Uint8Array; null for what is no plain file), or an object
 *   of list(): (async) iterable of {path, plain, size} of all that is there, of folders those that are empty;
 *   read(path): (a promise of) the bytes of a small file, null when it is not there;
 *   pieces(path): (async) iterable of the bytes of a large one, piece by piece
 * @param known what the auditor has apart from the pack: {key: text, witnesses: bytes of a policy, checkpoints: a Map
 *   of what to call a checkpoint of an earlier time to its text}, each may be missing. A text alone is the key.
 * @param progress called with (entries checked, entries expected)
 * @returns {ok, org, entries, start, end, filtered, checkpoint_size, faults: [{where, what}], proven: [text],
 *   unproven: [text]}
 */
export async function verifyPack(pack, known = null, progress = () => {}) {
  const given = typeof known === "string" ? { key: known } : (known ?? {});
  const verifier = new Verifier(typeof pack.read === "function" ? pack : inMemory(pack), given, progress);
  await verifier.run();
  verifier.verdict.ok = verifier.verdict.faults.length === 0;
  return verifier.verdict;
}

function inMemory(files) {
  return {
    list: () => [...files].map(([path, bytes]) => ({ path, plain: bytes !== null, size: bytes?.length ?? 0 })),
    read: (path) => files.get(path) ?? null,
    pieces: (path) => [files.get(path)],
  };
}

class Verifier {
  constructor(pack, known, progress) {
    this.pack = pack;
    this.known = known;
    this.progress = progress;
    this.verdict = {
      ok: false,
      org: "",
      entries: 0,
      start: 0,
      end: 0,
      filtered: false,
      checkpoint_size: -1,
      faults: [],
      proven: [],
      unproven: [],
    };
  }

  fault(where, what) {
    if (this.verdict.faults.length < FAULTS_MAX) this.verdict.faults.push({ where, what });
  }

  /** Run a step; a Refusal in it becomes a fault of `where`. */
  async step(where, work) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.fault(where, error.message);
      return null;
    }
  }

  async run() {
    const { pack, verdict } = this;
    const manifest = await this.step(MANIFEST, async () => {
      const bytes = await pack.read(MANIFEST);
      insist(bytes, "is missing: this is no pack, or an export that did not end");
      insist(bytes.length <= SMALL_MAX, `is longer than ${SMALL_MAX} bytes`);
      return readManifest(bytes);
    });
    if (!manifest) return;
    const { org, start, end, filter } = manifest;
    Object.assign(verdict, { org, start, end, filtered: filter.size > 0 });
    if (filter.size) verdict.unproven.push(`that no other entries of [${start}, ${end}) ${FILTERED}`);
    if (!(await this.checkFiles(manifest))) return;
    const small = new Map();
    for (const [name, { bytes, sha256: hash }] of manifest.files) {
      if (name === ENTRIES) continue;
      const found = await pack.read(name);
      small.set(name, found);
      if ((bytes ?? found.length) !== found.length || hex(sha256(found)) !== hash)
        this.fault(name, "its size or its SHA-256 is not the one in the manifest: it was changed");
    }
    const key = await this.readKeys(small.get("key"));
    const checkpoint = key && (await this.readCheckpoint(manifest, key, small));
    const kept = checkpoint ? await this.readKept(key, checkpoint) : [];
    const leaves = new Leaves(pack, manifest, kept, (where, what) => this.fault(where, what));
    await this.readEntries(manifest, leaves);
    const root = await leaves.finish(this.progress);
    if (checkpoint) this.judgeRoots(manifest, checkpoint, root, kept, leaves.roots);
  }

  /** Whether all files are there but perhaps tiles; what is there beside them is a fault. */
  async checkFiles({ files, size, tiles }) {
    const missing = new Set(files.keys());
    let whole = true;
    for await (const { path, plain, size: bytes } of this.pack.list()) {
      const own = files.has(path) || path === MANIFEST;
      missing.delete(path);
      if (!own && !(tiles.length && isTile(path, size))) this.fault(quoted(path), ADDED);
      else if (!plain) this.fault(path, "is not a plain file");
      else if (own && path !== ENTRIES && bytes > SMALL_MAX) this.fault(path, `is longer than ${SMALL_MAX} bytes`);
      else continue;
      whole &&= !own;
      if (this.verdict.faults.length >= FAULTS_MAX) return false;
    }
    for (const name of missing) this.fault(name, "is missing: the pack is not complete");
    return whole && missing.size === 0;
  }

  // -- who signed ---------------------------------------------------------------------------------------------------

  /** The key that counts. A policy of the auditor's that lists logs says itself whose it may be. */
  async readKeys(bytes) {
    const packed = await this.step("key", () => readPackedKey(bytes));
    this.policy = null;
    if (this.known.witnesses) {
      this.policy = await this.step("the witnesses given", () => readPolicy(this.known.witnesses));
      if (!this.policy) return null;
    }
    if (!packed) return null;
    if (typeof this.known.key !== "string") {
      if (!this.policy?.logs.length) this.verdict.unproven.push(`the key came with the pack: ${ELSEWHERE}`);
      return packed;
    }
    const given = await this.step("the key given", () => readLogKey(this.known.key));
    if (given && packed.text !== given.text)
      this.fault("key", "is not the key that was given: the pack is of another log or was signed by another");
    return given;
  }

  async readCheckpoint(manifest, key, small) {
    return this.step("checkpoint", async () => {
      const note = utf8(small.get("checkpoint"));
      const found = await openCheckpoint(note, key);
      const { origin } = found;
      this.verdict.checkpoint_size = Number(found.size);
      insist(origin === key.name, `its origin is ${quoted(origin)}, but the key is that of ${quoted(key.name)}`);
      const own = origin.endsWith(`/audit/${manifest.org}`);
      insist(own, `its origin ${quoted(origin)} is not the log of organization ${quoted(manifest.org)}`);
      await this.judgeWitnesses(note, small.get("witnesses"));
      return found;
    });
  }

  async judgeWitnesses(note, packed) {
    const { proven, unproven } = this.verdict;
    let policy = this.policy;
    if (!policy && packed) {
      policy = await this.step("witnesses", () => readPolicy(packed));
      if (!policy) return;
      unproven.push(THEIRS);
    }
    if (!policy || policy.quorum === "none") unproven.push(ALONE);
    if (!policy) return;
    const words = await judgePolicy(policy, note);
    if (policy.quorum !== "none") proven.push(words);
  }

  /** Checkpoints of earlier times, as far as they are of this log and not of a longer one. */
  async readKept(key, checkpoint) {
    const kept = [];
    for (const [name, note] of this.known.checkpoints ?? [])
      await this.step(name, async () => {
        const old = await openCheckpoint(note, key);
        const { origin, size } = checkpoint;
        const other = `is a checkpoint of ${quoted(old.origin)}, and the pack's is of ${quoted(origin)}`;
        insist(old.origin === origin, other);
        const cut = `signs ${old.size} entries, and the pack's checkpoint ${size}: the log was cut off`;
        insist(old.size <= size, `${cut}, or the pack is the older one`);
        kept.push({ name, size: Number(old.size), root: old.root });
      });
    return kept;
  }

  judgeRoots(manifest, checkpoint, root, kept, roots) {
    const { format, size, start } = manifest;
    if (BigInt(size) !== checkpoint.size)
      this.fault("checkpoint", `signs ${checkpoint.size} entries, but the pack is of a tree of ${size}`);
    else if (format === 1 && start > 0)
      this.fault("checkpoint", `signs all ${size} entries, and nothing proves a part of them; export it again`);
    else if (root !== null && root !== checkpoint.root)
      this.fault("checkpoint", "the entries are not those that were signed: the Merkle root differs");
    for (const old of kept) {
      const found = roots.get(old.size);
      if (found === undefined) continue; // the tiles are damaged, which is a fault already
      const same = `the log continues ${old.name}: its ${old.size} entries are the same`;
      if (found === old.root) this.verdict.proven.push(same);
      else this.fault(old.name, `the first ${old.size} entries are others than it signs: the log was written anew`);
    }
  }

  // -- the entries --------------------------------------------------------------------------------------------------

  async readEntries(manifest, leaves) {
    const { verdict } = this;
    const { start, end } = manifest;
    const entries = new Entries(manifest, (where, what) => this.fault(where, what));
    const hash = new Sha256();
    let size = 0;
    for await (const [line, ending] of linesOf(this.pack.pieces(ENTRIES))) {
      hash.update(line).update(ending);
      size += line.length + ending.length;
      const found = entries.take(line, ending.length === 1);
      if (found) await this.step(found.where, () => leaves.check(found.place, found.leaf));
      if (entries.number % 1000 === 0) this.progress(entries.last + 1 - start, end - start);
      if (verdict.faults.length >= FAULTS_MAX) {
        verdict.faults.push({ where: ENTRIES, what: "too many faults: the rest was not read" });
        return;
      }
      verdict.entries = entries.number;
    }
    if (entries.number !== manifest.count)
      this.fault(ENTRIES, `has ${entries.number} entries, the manifest counts ${manifest.count}`);
    const part = manifest.files.get(ENTRIES);
    if ((part.bytes ?? size) !== size || hex(hash.digest()) !== part.sha256)
      this.fault(ENTRIES, "its size or its SHA-256 is not the one in the manifest: it was changed");
    const days = entries.counted;
    if (days.length) {
      const span = days.length === 1 ? days[0] : `${days[0]} to ${days.at(-1)}`;
      const counts = days.length === 1 ? "1 daily count" : `${days.length} daily counts`;
      verdict.proven.push(`${counts} (${span}): as many requests as there are entries of them`);
    }
  }
}

/** Lines without their newlines, and what ended each: a newline, or nothing. None is longer than an entry may be. */
async function* linesOf(pieces) {
  const NEWLINE = new Uint8Array([10]);
  const NOTHING = new Uint8Array();
  let rest = NOTHING;
  for await (const piece of pieces) {
    let bytes = piece;
    if (rest.length) {
      bytes = new Uint8Array(rest.length + piece.length);
      bytes.set(rest);
      bytes.set(piece, rest.length);
    }
    let from = 0;
    for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, from)) {
      yield [bytes.subarray(from, at), NEWLINE];
      from = at + 1;
    }
    const most = LINE_MAX + 2;
    for (; bytes.length - from >= most; from += most) yield [bytes.subarray(from, from + most), NOTHING];
    rest = bytes.slice(from);
  }
  if (rest.length) yield [rest, NOTHING];
}
