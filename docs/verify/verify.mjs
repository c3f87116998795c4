// A second verifier of Orgate's audit packs: written from docs/reference/audit-log.md ("A pack", "How a pack is judged")
// and the standards that it names, and from nothing else. It shares no code with `orgate audit verify`.
//
// This file and canonical.mjs run as they are in a browser and in Node: they need WebCrypto with SHA-256 and Ed25519, and
// nothing else. verify-cli.mjs beside them reads folders.

import { Refusal, LINE_MAX, insist, parseCanonical, utf8 } from "./canonical.mjs";

const FILES = ["entries.jsonl", "checkpoint", "key"];
const MANIFEST = "manifest.json";
const MEMBERS = ["count", "digest", "end", "format", "made_at", "org", "sha256", "start"];
const FAULTS_MAX = 100;
const BATCH = 4096; // lines in work at once
const ELSEWHERE = "compare it with the one you got from the operator by other means";
const ZEROS = "0".repeat(64);

/**
 * Judge one pack. Never throws for what the pack holds.
 *
 * @param files a Map of file names to their bytes (Uint8Array); null for what is there and is no plain file
 * @param key the log's verifier key (text) as the auditor got it apart from the pack; null: the pack's own
 * @param progress called with (entries checked, entries expected)
 * @returns {ok, org, entries, checkpoint_size, faults: [{where, what}], unproven: [text]}
 */
export async function verifyPack(files, key = null, progress = () => {}) {
  const verdict = { ok: false, org: "", entries: 0, checkpoint_size: -1, faults: [], unproven: [] };
  const fault = (where, what) => {
    if (verdict.faults.length < FAULTS_MAX) verdict.faults.push({ where, what });
  };
  /** Run a step; a Refusal in it becomes a fault of `where`. */
  const step = async (where, work) => {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      fault(where, error.message);
      return null;
    }
  };
  checkNames(files, fault);
  const manifest = verdict.faults.length ? null : await step(MANIFEST, () => readManifest(files.get(MANIFEST)));
  if (manifest) {
    verdict.org = manifest.org;
    for (const name of FILES) {
      if (hex(await sha256(files.get(name))) !== manifest.sha256.get(name))
        fault(name, "its SHA-256 is not the one in the manifest: it was changed");
    }
    const packed = await step("key", () => readPackedKey(files.get("key")));
    const given = key === null ? packed : await step("the key given", () => readKey(key.trim()));
    if (key === null && packed) verdict.unproven.push(`the key came with the pack: ${ELSEWHERE}`);
    if (packed && given && packed.text !== given.text)
      fault("key", "is not the key that was given: the pack is of another log or was signed by another");
    const note = files.get("checkpoint");
    const checkpoint = given && (await step("checkpoint", () => readCheckpoint(note, given, manifest.org)));
    const root = await readEntries(files.get("entries.jsonl"), manifest, fault, verdict, progress);
    if (checkpoint) {
      const { start, end } = manifest;
      verdict.checkpoint_size = Number(checkpoint.size);
      if (start !== 0 || String(end) !== checkpoint.size)
        fault("checkpoint", `signs entries [0, ${checkpoint.size}), and the pack claims [${start}, ${end})`);
      else if (root !== checkpoint.root)
        fault("checkpoint", "the entries are not those that were signed: the Merkle root differs");
    }
  }
  verdict.ok = verdict.faults.length === 0;
  return verdict;
}

// -- the files ----------------------------------------------------------------------------------------------------

function checkNames(files, fault) {
  for (const name of [MANIFEST, ...FILES]) {
    const bytes = files.get(name);
    if (bytes === undefined) fault(name, "is missing: the pack is not complete");
    else if (bytes === null) fault(name, "is not a plain file");
    else if (name !== "entries.jsonl" && bytes.length > LINE_MAX) fault(name, `is longer than ${LINE_MAX} bytes`);
  }
  for (const name of files.keys())
    if (name !== MANIFEST && !FILES.includes(name)) fault(quoted(name), "is not part of a pack: it was added");
}

async function readManifest(bytes) {
  insist(bytes.at(-1) === 10, "does not end with a newline: it was cut off");
  const text = utf8(bytes.subarray(0, -1));
  const found = parseCanonical(text, bytes.length - 1);
  insist([...found.keys()].join() === MEMBERS.join() && found.get("format") === 1, "is not a manifest of format 1");
  const { count, digest, end, made_at, org, sha256: hashes, start } = Object.fromEntries(found);
  insist(typeof org === "string", "does not name its organization");
  const named = hashes instanceof Map ? [...hashes.keys()].sort().join() : "";
  insist(named === [...FILES].sort().join(), "does not name exactly the files of a pack");
  insist([start, end, count, made_at].every((n) => typeof n === "number"), "its range, count or time is no number");
  const fits = 0 <= start && start <= end && count === end - start;
  insist(fits, `its range [${start}, ${end}) and its count ${count} do not fit`);
  insist(typeof digest === "string" && /^[0-9a-f]{64}$/.test(digest), "its digest is not 64 hexadecimal digits");
  // In canonical JSON a member can be taken out as text: `count` always stands before it, and a quotation mark
  // within a string is escaped, so that this text is nowhere else.
  const rest = new TextEncoder().encode(text.replace(`,"digest":"${digest}"`, ""));
  insist(hex(await sha256(rest)) === digest, "its digest does not fit its contents: it was changed");
  return { org, start, end, count, sha256: hashes };
}

// -- the entries --------------------------------------------------------------------------------------------------

/** Judge every line; the Merkle root over them, as base64. */
async function readEntries(bytes, manifest, fault, verdict, progress) {
  const lines = splitLines(bytes);
  const leaves = [];
  const boots = new Map();
  let prev = manifest.start === 0 ? ZEROS : null;
  for (let from = 0; from < lines.length; from += BATCH) {
    const bodies = lines.slice(from, from + BATCH).map(([a, b]) => bytes.subarray(a, b));
    const hashes = await Promise.all(bodies.map(sha256));
    leaves.push(...(await Promise.all(bodies.map((body) => sha256(joined([0], body)))))); // RFC 6962 section 2.1
    bodies.forEach((body, i) => {
      const place = manifest.start + from + i;
      const where = `entries.jsonl line ${from + i + 1} (entry ${place})`;
      try {
        const entry = parseCanonical(utf8(body), body.length);
        for (const what of judge(entry, manifest.org, place, prev, boots)) fault(where, what);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        fault(where, error.message);
      }
      prev = hex(hashes[i]);
    });
    verdict.entries = from + bodies.length;
    progress(verdict.entries, manifest.count);
    if (verdict.faults.length >= FAULTS_MAX) {
      verdict.faults.push({ where: "entries.jsonl", what: "too many faults: the rest was not read" });
      return null;
    }
  }
  if (bytes.length && bytes.at(-1) !== 10) fault("entries.jsonl", "does not end with a newline: it was cut off");
  if (lines.length !== manifest.count)
    fault("entries.jsonl", `has ${lines.length} entries, the manifest counts ${manifest.count}`);
  return base64(await merkleRoot(leaves));
}

/** [start, end) of each line without its newline. */
function splitLines(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const newline = bytes.indexOf(10, at);
    const end = newline < 0 ? bytes.length : newline;
    found.push([at, end]);
    at = end + 1;
  }
  return found;
}

/** What is wrong with an entry at this place. `boots`: the last number of each worker's spool so far. */
function judge(entry, org, place, prev, boots) {
  const faults = [];
  if (entry.get("schema") !== 1) faults.push("its schema is not 1");
  if (entry.get("org") !== org) faults.push(`it belongs to another organization than ${quoted(org)}`);
  const index = entry.get("index");
  if (typeof index !== "number") faults.push("it has no index");
  else if (index > place)
    faults.push(`its index is ${index}, expected ${place}: entries are missing or out of order before it`);
  else if (index < place)
    faults.push(`its index is ${index}, expected ${place}: an entry was repeated, inserted or moved`);
  if (prev !== null && entry.get("prev") !== prev)
    faults.push("its `prev` is not the hash of the entry before it: one of the two was changed");
  if (entry.has("spool")) {
    const spool = entry.get("spool");
    const [boot, number] = Array.isArray(spool) && spool.length === 2 ? spool : [];
    if (typeof boot !== "string" || typeof number !== "number") faults.push("its `spool` is not a boot and a number");
    else if (number <= (boots.get(boot) ?? 0))
      faults.push("its receipt is an entry already, or its spool numbers go backwards");
    else boots.set(boot, number);
  }
  return faults;
}

/** MTH of RFC 6962 section 2.1 over leaf hashes, level by level: a node without a neighbour goes up as it is. */
async function merkleRoot(leaves) {
  if (leaves.length === 0) return sha256(new Uint8Array());
  for (let level = leaves; ; ) {
    if (level.length === 1) return level[0];
    const above = [];
    for (let from = 0; from < level.length; from += 2 * BATCH) {
      const pairs = [];
      for (let i = from; i < Math.min(from + 2 * BATCH, level.length); i += 2)
        pairs.push(i + 1 < level.length ? sha256(joined([1], level[i], level[i + 1])) : level[i]);
      above.push(...(await Promise.all(pairs)));
    }
    level = above;
  }
}

// -- the checkpoint: c2sp.org/signed-note and c2sp.org/tlog-checkpoint, Ed25519 of RFC 8032 --------------------------

async function readPackedKey(bytes) {
  const text = utf8(bytes);
  insist(text.endsWith("\n"), "does not end with a newline: it was cut off");
  return readKey(text.slice(0, -1));
}

async function readKey(text) {
  const [, name, id, encoded] = /^([^+\p{White_Space}]+)\+([0-9a-f]{8})\+(.+)$/u.exec(text) ?? [];
  insist(name, "is not of the form name+id+base64");
  const raw = unbase64(encoded, "the key");
  insist(raw.length === 33 && raw[0] === 1, "is not an Ed25519 note key");
  const hash = await sha256(joined(new TextEncoder().encode(`${name}\n`), raw));
  insist(hex(hash.subarray(0, 4)) === id, "its id does not fit its name and bytes: it was changed");
  return { text, name, id, public: raw.subarray(1) };
}

/** The size (decimal text) and root (base64) that `key` signed for the log of `org`. */
async function readCheckpoint(bytes, key, org) {
  const note = utf8(bytes);
  insist(!/[\u0000-\u0009\u000b-\u001f]/.test(note), "holds control characters");
  const gap = note.lastIndexOf("\n\n");
  insist(gap >= 0 && note.endsWith("\n") && gap + 2 < note.length, "has no signature lines");
  const text = note.slice(0, gap + 1);
  let signatures = 0;
  for (const line of note.slice(gap + 2, -1).split("\n")) {
    const [, name, encoded] = /^\u2014 ([^ ]+) (.+)$/.exec(line) ?? [];
    insist(name, "a signature line is malformed");
    const raw = unbase64(encoded, "a signature");
    if (name !== key.name || hex(raw.subarray(0, 4)) !== key.id) continue; // of somebody else: a witness may sign too
    insist((signatures += 1) === 1, "the key has signed twice: a line was repeated");
    const good = await signed(key.public, raw.subarray(4), new TextEncoder().encode(text));
    insist(good, "the signature is wrong: the note or the signature was changed");
  }
  insist(signatures === 1, `is not signed by ${quoted(key.name)} with the key given`);
  const [origin, size, root, end, ...more] = text.split("\n");
  insist(end === "" && more.length === 0 && origin, "is not three lines: origin, size and root");
  insist(/^(0|[1-9][0-9]{0,19})$/.test(size), "its size is not a plain decimal number");
  insist(unbase64(root, "its root").length === 32, "its root is not 32 bytes");
  insist(origin === key.name, `its origin is ${quoted(origin)}, but the key is that of ${quoted(key.name)}`);
  insist(origin.endsWith(`/audit/${org}`), `its origin ${quoted(origin)} is not the log of organization ${quoted(org)}`);
  return { size, root };
}

async function signed(publicKey, signature, bytes) {
  const imported = await crypto.subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]).catch(() => null);
  return imported !== null && crypto.subtle.verify("Ed25519", imported, signature, bytes);
}

// -- bytes and texts ------------------------------------------------------------------------------------------------

const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const base64 = (bytes) => btoa(String.fromCharCode(...bytes));
const quoted = (text) => JSON.stringify(text);

function joined(...parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/** Bytes have one spelling: of others that decode to the same (padding bits, white space) none is taken. */
function unbase64(text, what) {
  let raw;
  try {
    raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  } catch {
    throw new Refusal(`${what} is not base64`);
  }
  insist(base64(raw) === text, `${what} is base64 in another than its one spelling`);
  return raw;
}
