#!/usr/bin/env node
// node proof-cli.mjs [--key KEY] [--witnesses FILE] [--entry FILE] PROOF...
//
// Judges proofs of one entry each; see proof.mjs beside it. KEY is the log's key, a file or its text, FILE a policy of who
// has to have cosigned, or the entry that a proof has to be about: all of them from elsewhere than the proofs.
// Prints one line of JSON for each proof. Exit code: 0 all hold, 1 one does not, 2 wrong usage.

import { existsSync, readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";
import { parseArgs } from "node:util";
import { verifyProof } from "./proof.mjs";

globalThis.crypto ??= webcrypto; // Node 18 keeps it there
const USAGE = "usage: node proof-cli.mjs [--key KEY] [--witnesses FILE] [--entry FILE] PROOF...";

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

/** ASCII only: what somebody wrote into a proof must not steer a terminal. */
function line(value) {
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

const options = { key: { type: "string" }, witnesses: { type: "string" }, entry: { type: "string" } };
let given;
try {
  given = parseArgs({ options, allowPositionals: true });
} catch (error) {
  usage(error.message);
}
if (given.positionals.length === 0) usage("no proof was named");
const { key, witnesses, entry } = given.values;
if (!key && !witnesses) usage("whose log? give its key, or a policy that lists it");
const known = {
  key: key !== undefined && existsSync(key) ? file(key).toString() : key,
  witnesses: witnesses === undefined ? undefined : file(witnesses),
  entry: entry === undefined ? undefined : file(entry),
};
let bad = 0;
for (const proof of given.positionals) {
  const verdict = await verifyProof(file(proof), known);
  bad += verdict.ok ? 0 : 1;
  process.stdout.write(`${line({ proof, ...verdict })}\n`);
}
process.exitCode = bad ? 1 : 0;
