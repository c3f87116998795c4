// Who signed a checkpoint: c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature and tlog-policy, with Ed25519 (RFC
// 8032) of WebCrypto. Texts go in, and what they say comes out; whatever is otherwise is a Refusal.

import { Refusal, insist, utf8 } from "./canonical.mjs";
import { sha256 } from "./sha256.mjs";

const LOG = 1; // types of signatures
const COSIGNER = 4;
const ML_DSA = 6;
const NOTE_MAX = 64 * 1024;
const POLICY_MAX = 256 * 1024;
const ENCODER = new TextEncoder();

// -- keys -----------------------------------------------------------------------------------------------------------

/** A verifier key, `name+id+base64`, of a log or of a witness. */
function readKey(text, type) {
  const [, name, id, encoded] = /^([^+\p{White_Space}\u001c-\u001f]+)\+([^+]*)\+(.*)$/su.exec(text) ?? [];
  insist(name, "the key is not of the form name+id+base64");
  const raw = unbase64(encoded, "the key");
  insist(raw[0] !== ML_DSA, "the key is an ML-DSA-44 key: only Ed25519 is known here");
  insist(raw.length === 33 && raw[0] === type, `the key is not an Ed25519 key of type ${type}`);
  const hash = hex(sha256(ENCODER.encode(`${name}\n`), raw).subarray(0, 4));
  insist(hash === id, "the key's id does not fit its name and bytes: it was changed");
  return { text, name, id, public: raw.subarray(1) };
}

const trimmed = (text) => text.replace(/^[\p{White_Space}\u001c-\u001f]+|[\p{White_Space}\u001c-\u001f]+$/gu, "");

export const readLogKey = (text) => readKey(trimmed(text), LOG);
const readWitnessKey = (text) => readKey(trimmed(text), COSIGNER);

/** The file `key` of a pack: a key and its newline. */
export function readPackedKey(bytes) {
  const text = utf8(bytes);
  insist(text.endsWith("\n"), "does not end with a newline: it was cut off");
  return readKey(text.slice(0, -1), LOG);
}

// -- notes ----------------------------------------------------------------------------------------------------------

/** Text and signature lines of a note; nothing is verified. */
function splitNote(note) {
  insist(note.length <= NOTE_MAX, `is longer than ${NOTE_MAX}`);
  insist(!/[\u0000-\u0009\u000b-\u001f]/.test(note), "holds control characters");
  const gap = note.lastIndexOf("\n\n");
  insist(gap >= 0 && note.endsWith("\n") && gap + 2 < note.length, "has no signature lines");
  const lines = note.slice(gap + 2, -1).split("\n");
  const signatures = lines.map((line) => {
    const [, name, encoded] = /^\u2014 ([^ ]+) (.+)$/su.exec(line) ?? [];
    insist(name, "a signature line is malformed");
    const raw = unbase64(encoded, "a signature");
    return { name, id: hex(raw.subarray(0, 4)), signature: raw.subarray(4) };
  });
  return { text: note.slice(0, gap + 1), signatures };
}

/** What stands in the three lines of a checkpoint's text. `size` is a BigInt, `root` base64. */
function readText(text) {
  const [origin, size, root, end, ...more] = text.split("\n");
  insist(end === "" && more.length === 0 && origin, "is not three lines: origin, size and root");
  insist(/^(0|[1-9][0-9]{0,19})$/.test(size), "its size is not a plain decimal number");
  insist(unbase64(root, "its root").length === 32, "its root is not 32 bytes");
  return { origin, size: BigInt(size), root };
}

/** The checkpoint in a note (text) that `key` signed, exactly once. */
export async function openCheckpoint(note, key) {
  const { text, signatures } = splitNote(note);
  const own = signatures.filter(({ name, id }) => name === key.name && id === key.id);
  for (const { signature } of own)
    insist(
      await signed(key, signature, ENCODER.encode(text)),
      `the signature of ${key.name} is wrong: the note or the signature was changed`,
    );
  insist(own.length > 0, `is not signed by ${key.name} with the key given`);
  insist(own.length === 1, `${key.name} has signed twice with one key: a line was repeated`);
  return readText(text);
}

/** When each of these witnesses cosigned: a Map of keys to Unix seconds (BigInt). */
async function cosignatures(note, keys) {
  const { text, signatures } = splitNote(note);
  const found = new Map();
  for (const { name, id, signature } of signatures) {
    const key = keys.find((one) => one.name === name && one.id === id);
    if (!key) continue;
    insist(!found.has(key), `${name} has cosigned twice with one key: a line was repeated`);
    insist(signature.length === 72, `the cosignature of ${name} is not 76 bytes long`);
    const at = new DataView(signature.buffer, signature.byteOffset).getBigUint64(0);
    insist(0n < at && at < 2n ** 63n, `the cosignature of ${name} has no time`);
    const message = ENCODER.encode(`cosignature/v1\ntime ${at}\n${text}`);
    const good = await signed(key, signature.subarray(8), message);
    insist(good, `the cosignature of ${name} is wrong: the checkpoint, the time or the signature was changed`);
    found.set(key, at);
  }
  return found;
}

async function signed(key, signature, bytes) {
  const imported = await crypto.subtle.importKey("raw", key.public, "Ed25519", false, ["verify"]).catch(() => null);
  return imported !== null && crypto.subtle.verify("Ed25519", imported, signature, bytes);
}

// -- policies -------------------------------------------------------------------------------------------------------

/** Read a policy file (bytes). {logs, witnesses: Map of name to key, groups: [{name, need, members}], quorum} */
export function readPolicy(bytes) {
  insist(bytes.length <= POLICY_MAX, `the policy is longer than ${POLICY_MAX} bytes`);
  const policy = { logs: [], witnesses: new Map(), groups: [], quorum: null };
  const names = new Set();
  const members = new Set();
  const publics = new Set();
  const own = (key) => {
    const bytes = hex(key.public);
    insist(!publics.has(bytes), "its key is in an earlier line already: one key, one voice");
    publics.add(bytes);
    return key;
  };
  const called = (name) => {
    insist(name !== "none", "'none' is reserved: give it another name");
    insist(!names.has(name), `${quoted(name)} is a name already`);
    names.add(name);
  };
  const known = (name) => insist(names.has(name), `${quoted(name)} is no witness or group of a line above`);
  const kinds = {
    log([key, url, ...more]) {
      insist(key && more.length === 0, "a log is 'log VKEY' or 'log VKEY URL'");
      policy.logs.push(own(readLogKey(key)));
    },
    witness([name, key, url, ...more]) {
      insist(key && more.length === 0, "a witness is 'witness NAME VKEY' or 'witness NAME VKEY URL'");
      called(name);
      policy.witnesses.set(name, own(readWitnessKey(key)));
    },
    group([name, need, ...listed]) {
      insist(listed.length, "a group is 'group NAME all|any|NUMBER MEMBER...', with a member at least");
      for (const member of listed) {
        known(member);
        insist(!members.has(member), `${quoted(member)} is a member already: it would count twice`);
        members.add(member);
      }
      called(name);
      const number = /^[1-9][0-9]{0,5}$/.test(need) ? Number(need) : { all: listed.length, any: 1 }[need];
      insist(number <= listed.length, `${quoted(need)} is neither all nor any nor a number that can be`);
      policy.groups.push({ name, need: number, members: listed });
    },
    quorum([name, ...more]) {
      insist(name && more.length === 0, "the quorum is 'quorum NAME', or 'quorum none'");
      insist(policy.quorum === null, "there is a quorum line already: a policy has one");
      if (name !== "none") known(name);
      policy.quorum = name;
    },
  };
  utf8(bytes)
    .split("\n")
    .forEach((line, at) => {
      try {
        insist(!/[\u0000-\u0008\u000b-\u001f\u007f]/.test(line), "holds a control character");
        const [kind, ...rest] = line.replace(/^[ \t]+|[ \t]+$/g, "").split(/[ \t]+/);
        if (kind === "" || kind.startsWith("#")) return;
        insist(Object.hasOwn(kinds, kind), `${quoted(kind)} is none of log, witness, group and quorum`);
        kinds[kind](rest);
      } catch (error) {
        throw error instanceof Refusal ? new Refusal(`line ${at + 1}: ${error.message}`) : error;
      }
    });
  insist(policy.quorum !== null, "there is no quorum line: write 'quorum NAME', or 'quorum none'");
  return policy;
}

/** Insist that a checkpoint, a whole note, counts under a policy; who cosigned it and when, in words. */
export async function judgePolicy(policy, note) {
  if (policy.logs.length) {
    const { origin } = readText(splitNote(note).text);
    const keys = policy.logs.filter((key) => key.name === origin);
    insist(keys.length, `the policy lists no log ${quoted(origin)}`);
    const opened = await Promise.all(keys.map((key) => openCheckpoint(note, key).catch(asRefusal)));
    if (opened.every((one) => one instanceof Refusal)) throw opened.at(-1);
  }
  const found = await cosignatures(note, [...policy.witnesses.values()]);
  const by = [...policy.witnesses].filter(([, key]) => found.has(key));
  const have = new Set(by.map(([name]) => name));
  for (const { name, need, members } of policy.groups)
    if (members.filter((member) => have.has(member)).length >= need) have.add(name);
  const who = by.map(([name, key]) => `${name} at ${instant(found.get(key))}`).join(", ");
  const met = policy.quorum === "none" || have.has(policy.quorum);
  const missing = [...policy.witnesses.keys()].filter((name) => !have.has(name)).join(", ");
  insist(met, `the quorum ${policy.quorum} is not met: ${who || "nobody has cosigned"}; without ${missing}`);
  return `the quorum ${policy.quorum} is met: ${who}`;
}

function asRefusal(error) {
  if (error instanceof Refusal) return error;
  throw error;
}

function instant(seconds) {
  if (seconds >= 253402300800n) return `second ${seconds}`; // beyond the year 9999
  return new Date(Number(seconds) * 1000).toISOString().replace(".000Z", "Z");
}

// -- bytes and texts --------------------------------------------------------------------------------------------------

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

export function hex(bytes) {
  let found = "";
  for (const byte of bytes) found += HEX[byte];
  return found;
}

export const base64 = (bytes) => btoa(String.fromCharCode(...bytes));
export const quoted = (text) => JSON.stringify(text);

/** Bytes have one spelling: of others that decode to the same (padding bits, white space) none is taken. */
export function unbase64(text, what) {
  let raw;
  try {
    raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  } catch {
    throw new Refusal(`${what} is not base64`);
  }
  insist(base64(raw) === text, `${what} is base64 in another than its one spelling`);
  return raw;
}
