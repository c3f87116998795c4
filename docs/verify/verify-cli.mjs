#!/usr/bin/env node
// node verify-cli.mjs [--key KEY] PACK...     judge audit packs; see verify.mjs beside it.
//
// KEY: the log's key, a file or its text, as you got it apart from the packs. Prints one line of JSON for each pack.
// Exit code: 0 all verify, 1 one does not, 2 wrong usage.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { webcrypto } from "node:crypto";
import { parseArgs } from "node:util";
import { verifyPack } from "./verify.mjs";

globalThis.crypto ??= webcrypto; // Node 18 keeps it there
const PARTS = ["manifest.json", "entries.jsonl", "checkpoint", "key"];

/** The files of a folder. Only those of a pack are read, and links are not followed: one could lead out of it. */
function filesIn(folder) {
  const found = new Map();
  for (const item of readdirSync(folder, { withFileTypes: true }))
    found.set(item.name, PARTS.includes(item.name) && item.isFile() ? readFileSync(join(folder, item.name)) : null);
  return found;
}

async function judge(folder, key) {
  try {
    return await verifyPack(filesIn(folder), key);
  } catch (error) {
    if (!error.code) throw error;
    const faults = [{ where: folder, what: `cannot be read (${error.code})` }];
    return { ok: false, org: "", entries: 0, checkpoint_size: -1, faults, unproven: [] };
  }
}

/** ASCII only: what somebody wrote into a pack must not steer a terminal. */
function line(value) {
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function usage(message) {
  process.stderr.write(`${message}\nusage: node verify-cli.mjs [--key KEY] PACK...\n`);
  process.exit(2);
}

let given;
try {
  given = parseArgs({ options: { key: { type: "string" } }, allowPositionals: true });
} catch (error) {
  usage(error.message);
}
if (given.positionals.length === 0) usage("no pack was named");
let key = given.values.key ?? null;
if (key !== null && existsSync(key)) key = readFileSync(key, "utf8");
let bad = 0;
for (const pack of given.positionals) {
  const verdict = await judge(pack, key);
  bad += verdict.ok ? 0 : 1;
  const faults = verdict.faults.map(({ where, what }) => `${where}: ${what}`);
  process.stdout.write(`${line({ pack, ...verdict, faults })}\n`);
}
process.exitCode = bad ? 1 : 0;
