// What a pack says it holds: `manifest.json`, of format 2 or 1. Whatever is otherwise is a Refusal.

import { insist, parseCanonical, utf8 } from "./canonical.mjs";
import { hex } from "./note.mjs";
import { sha256 } from "./sha256.mjs";
import { HASH, hashesAt } from "./tree.mjs";

const OWN = ["checkpoint", "entries.jsonl", "key"];
const SECOND = ["README.txt", ...OWN];
const MEMBERS = {
  1: "count digest end format made_at org sha256 start",
  2: "count digest end files filter format made_at org size start tiles",
};

/** `files` and `tiles` are {bytes, sha256}; of format 1 nothing is known of `bytes`. */
export function readManifest(bytes) {
  insist(bytes.at(-1) === 10, "does not end with a newline: it was cut off");
  const text = utf8(bytes.subarray(0, -1));
  const found = parseCanonical(text, bytes.length - 1);
  const format = found.get("format");
  const known = format === 1 || format === 2;
  insist(known && [...found.keys()].join(" ") === MEMBERS[format], "is not a manifest of format 2, nor of format 1");
  const { count, digest, end, made_at, org, start, size = end, filter = new Map() } = Object.fromEntries(found);
  insist(typeof org === "string", "does not name its organization");
  const numbers = [start, end, count, made_at, size].every((n) => typeof n === "number");
  insist(numbers, "its range, count, size or time is no number");
  const range = 0 <= start && start <= end && end <= size;
  insist(range, `its range [${start}, ${end}) is none of a tree of ${size} entries`);
  checkFilter(filter);
  const fits = 0 <= count && count <= end - start && (filter.size > 0 || count === end - start);
  insist(fits, `its range [${start}, ${end}) and its count ${count} do not fit`);
  insist(typeof digest === "string" && /^[0-9a-f]{64}$/.test(digest), "its digest is not 64 hexadecimal digits");
  // In canonical JSON a member can be taken out as text: `count`, a number, is all that stands before it.
  const rest = new TextEncoder().encode(text.replace(`,"digest":"${digest}"`, ""));
  insist(hex(sha256(rest)) === digest, "its digest does not fit its contents: it was changed");
  const files = format === 1 ? readHashes(found.get("sha256")) : readFiles(found.get("files"));
  const tiles = format === 1 ? [] : readTiles(found.get("tiles"), size);
  return { format, org, size, start, end, count, filter, files, tiles };
}

function checkFilter(filter) {
  insist(filter instanceof Map, "its filter is no object");
  for (const [name, value] of filter) {
    const texts = Array.isArray(value) ? value : [value];
    const fits = texts.length > 0 && texts.every((text) => typeof text === "string");
    const time = name === "since" || name === "until";
    insist(time ? typeof value === "number" : fits, `its filter says nothing with ${name}`);
  }
}

function readHashes(found) {
  const named = found instanceof Map && [...found.keys()].join() === OWN.join();
  insist(named, "does not name exactly the files of a pack");
  return new Map([...found].map(([name, hash]) => [name, { bytes: null, sha256: readHash(hash) }]));
}

function readFiles(found) {
  const names = found instanceof Map ? [...found.keys()].filter((name) => name !== "witnesses") : [];
  insist(names.join() === SECOND.join(), "does not name exactly the files of a pack");
  return new Map([...found].map(([name, part]) => [name, readPart(part)]));
}

function readTiles(found, size) {
  insist(Array.isArray(found), "its tiles are no list");
  const tiles = found.map(readPart);
  const expected = [];
  for (let level = 0; hashesAt(size, level) > 0; level += 1) expected.push(hashesAt(size, level) * HASH);
  const fits = tiles.map(({ bytes }) => bytes).join() === expected.join() && tiles.length === expected.length;
  insist(fits, `its tiles are not those of a tree of ${size} entries`);
  return tiles;
}

function readPart(found) {
  const named = found instanceof Map && [...found.keys()].join() === "bytes,sha256";
  insist(named, "does not give size and SHA-256 of each file");
  const bytes = found.get("bytes");
  insist(typeof bytes === "number" && bytes >= 0, "gives a size that is none");
  return { bytes, sha256: readHash(found.get("sha256")) };
}

function readHash(found) {
  insist(typeof found === "string" && /^[0-9a-f]{64}$/.test(found), "gives a SHA-256 that is none");
  return found;
}
