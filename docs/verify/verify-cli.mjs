#!/usr/bin/env node
// node verify-cli.mjs [--key KEY] [--witnesses FILE] [--since-checkpoint FILE]... PACK...
//
// Judges evidence packs; see verify.mjs beside it. What is given holds for all packs, and should come from elsewhere
// than they: KEY, the log's key, a file or its text; the policy of who has to have cosigned; checkpoints of earlier
// times, or packs with them.
// Prints one line of JSON for each pack. Exit code: 0 all verify, 1 one does not, 2 wrong usage.

import { closeSync, createReadStream, existsSync, lstatSync, openSync, readFileSync, readSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { webcrypto } from "node:crypto";
import { parseArgs } from "node:util";
import { verifyPack } from "./verify.mjs";

globalThis.crypto ??= webcrypto; // Node 18 keeps it there
const USAGE = "usage: node verify-cli.mjs [--key KEY] [--witnesses FILE] [--since-checkpoint FILE]... PACK...";
const DEPTH_MAX = 10;
const SMALL_MAX = 64 * 1024; // no file but the entries may be longer

/** A folder as verify.mjs reads it. Links are not followed: one could lead out of it. */
function inFolder(folder) {
  function* list(below, depth) {
    const found = readdirSync(join(folder, below), { withFileTypes: true });
    if (found.length === 0 && below) yield { path: below, plain: false, size: 0 };
    for (const item of found) {
      const path = below ? `${below}/${item.name}` : item.name;
      if (item.isDirectory() && depth < DEPTH_MAX) yield* list(path, depth + 1);
      else yield { path, plain: item.isFile(), size: item.isFile() ? lstatSync(join(folder, path)).size : 0 };
    }
  }
  const plain = (path) => {
    const found = lstatSync(join(folder, path), { throwIfNoEntry: false });
    return found?.isFile() === true;
  };
  return {
    list: () => list("", 0),
    read: (path) => (plain(path) ? beginning(join(folder, path)) : null),
    pieces: (path) => createReadStream(join(folder, path), { highWaterMark: 1 << 20 }),
  };
}

/** What a small file holds, and of a longer one a byte more than it may: not all of it has to fit into memory. */
function beginning(path) {
  const bytes = Buffer.alloc(SMALL_MAX + 1);
  const file = openSync(path);
  try {
    let size = 0;
    for (let got = -1; got !== 0; size += got) got = readSync(file, bytes, size, bytes.length - size, null);
    return bytes.subarray(0, size);
  } finally {
    closeSync(file);
  }
}

async function judge(folder, known) {
  try {
    readdirSync(folder);
    return await verifyPack(inFolder(folder), known);
  } catch (error) {
    if (!error.code) throw error;
    const faults = [{ where: folder, what: `cannot be read (${error.code})` }];
    return { ok: false, org: "", entries: 0, checkpoint_size: -1, faults, proven: [], unproven: [] };
  }
}

/** ASCII only: what somebody wrote into a pack must not steer a terminal. */
function line(value) {
  const escape = (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, escape);
}

function usage(message) {
  process.stderr.write(`${message}\n${USAGE}\n`);
  process.exit(2);
}

function file(path) {
  try {
    return readFileSync(path);
  } catch (error) {
    return usage(`${path}: cannot be read (${error.code})`);
  }
}

const isFolder = (path) => lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;

const options = {
  key: { type: "string" },
  witnesses: { type: "string" },
  "since-checkpoint": { type: "string", multiple: true, default: [] },
};
let given;
try {
  given = parseArgs({ options, allowPositionals: true });
} catch (error) {
  usage(error.message);
}
if (given.positionals.length === 0) usage("no pack was named");
const { key, witnesses, "since-checkpoint": kept } = given.values;
const known = {
  key: key !== undefined && existsSync(key) ? file(key).toString() : key,
  witnesses: witnesses === undefined ? undefined : file(witnesses),
  checkpoints: new Map(kept.map((path) => [path, file(isFolder(path) ? join(path, "checkpoint") : path).toString()])),
};
let bad = 0;
for (const pack of given.positionals) {
  const verdict = await judge(pack, known);
  bad += verdict.ok ? 0 : 1;
  const faults = verdict.faults.map(({ where, what }) => `${where}: ${what}`);
  process.stdout.write(`${line({ pack, ...verdict, faults })}\n`);
}
process.exitCode = bad ? 1 : 0;
