// Downloads an organization's log and makes of it the pack that `orgate audit export` would have made: the files that
// the second verifier judges, in memory.

export const ENTRIES_MAX = 200_000; // about 150 MB of lines, twice that while they are judged

/** What the server said no with, in its own words. */
export class ServerError extends Error {}

async function ask(url) {
  const answer = await fetch(url, { credentials: "same-origin", cache: "no-store" });
  if (answer.ok) return answer;
  let said = "";
  try {
    said = (await answer.json()).detail;
  } catch {
    // not a problem of ours (RFC 9457): a proxy's page
  }
  throw new ServerError(said || `The server answered ${answer.status}.`);
}

/** How many entries a checkpoint is about: its second line (C2SP tlog-checkpoint); NaN: it is none. */
export function sizeOf(checkpoint) {
  const line = checkpoint.split("\n")[1] ?? "";
  return /^(0|[1-9][0-9]{0,15})$/.test(line) ? Number(line) : NaN;
}

/**
 * All of `org`'s entries that a checkpoint signs. `progress`: called with (entries so far, all).
 *
 * @returns {files, remark}: the pack's files by name; what the server remarks of its checkpoint, '' for nothing
 */
export async function download(org, progress) {
  const base = `/orgs/${encodeURIComponent(org)}/audit`;
  const answer = await ask(`${base}/checkpoint`);
  const remark = answer.headers.get("x-orgate-remark") ?? "";
  const checkpoint = await answer.text();
  const key = await (await ask(`${base}/key`)).text();
  const size = sizeOf(checkpoint);
  if (Number.isNaN(size)) throw new ServerError("The server's checkpoint cannot be understood.");
  if (size > ENTRIES_MAX)
    throw new ServerError(
      `The log has ${size} entries; a browser takes ${ENTRIES_MAX}. Use orgate audit export and orgate audit verify.`,
    );
  const entries = size ? await lines(`${base}/log?start=0&end=${size}`, size, progress) : new Uint8Array();
  const found = await files(org, size, { "entries.jsonl": entries, checkpoint: bytes(checkpoint), key: bytes(`${key.trimEnd()}\n`) });
  return { files: found, remark };
}

async function lines(url, size, progress) {
  const reader = (await ask(url)).body.getReader();
  const pieces = [];
  let seen = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    for (const byte of value) if (byte === 10) seen += 1;
    progress(seen, size);
  }
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  pieces.reduce((at, piece) => (whole.set(piece, at), at + piece.length), 0);
  return whole;
}

/** A pack made here says of itself what it is: its manifest counts what the checkpoint says, not what came. */
async function files(org, size, parts) {
  const sha256 = {};
  for (const name of Object.keys(parts).sort()) sha256[name] = await hash(parts[name]);
  const made_at = Math.floor(Date.now() / 1000);
  const rest = { count: size, end: size, format: 1, made_at, org, sha256, start: 0 };
  const digest = await hash(bytes(JSON.stringify(rest)));
  const { count, ...after } = rest; // `digest` has its place among the names: canonical JSON
  const manifest = bytes(`${JSON.stringify({ count, digest, ...after })}\n`);
  return new Map([...Object.entries(parts), ["manifest.json", manifest]]);
}

const bytes = (text) => new TextEncoder().encode(text);

async function hash(data) {
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
