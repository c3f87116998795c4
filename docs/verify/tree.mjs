// The Merkle tree of RFC 6962 section 2.1, in tiles (c2sp.org/tlog-tiles): leaf hashes go in once and in order.

import { insist } from "./canonical.mjs";
import { sha256 } from "./sha256.mjs";

export const HASH = 32;
export const WIDTH = 256; // hashes in a full tile
const NODE = new Uint8Array([1]);
const LEAF = new Uint8Array([0]);

export const leafHash = (line) => sha256(LEAF, line);

/** How many hashes level `level` has in a tree of `size` leaves. */
export const hashesAt = (size, level) => Math.floor(size / WIDTH ** level);

/** `tile/<L>/<N>[.p/<W>]` */
export function tilePath(level, number, width = WIDTH) {
  const digits = String(number).replace(/^\d+$/, (all) => all.padStart(Math.ceil(all.length / 3) * 3, "0"));
  const groups = digits.match(/\d{3}/g);
  const last = groups.pop();
  return ["tile", level, ...groups.map((group) => `x${group}`), last].join("/") + (width < WIDTH ? `.p/${width}` : "");
}

/** Whether a tree of `size` leaves has a tile at this path. */
export function isTile(path, size) {
  const [, level, groups, width] = /^tile\/([0-9])\/((?:x\d{3}\/){0,5}\d{3})(?:\.p\/(\d{1,3}))?$/.exec(path) ?? [];
  if (level === undefined) return false;
  const number = Number(groups.replace(/[x/]/g, ""));
  const there = Math.min(hashesAt(size, Number(level)) - number * WIDTH, WIDTH);
  return there > 0 && there === Number(width ?? WIDTH) && tilePath(Number(level), number, there) === path;
}

/** Root of a perfect subtree over these hashes, which stand next to each other; it writes over them. */
function fold(hashes) {
  for (let count = hashes.length / HASH; count > 1; count /= 2)
    for (let i = 0; i < count / 2; i += 1)
      hashes.set(sha256(NODE, hashes.subarray(i * 2 * HASH, (i * 2 + 2) * HASH)), i * HASH);
  return hashes.slice(0, HASH);
}

/** What is known after so many leaves; of each level less than a tile is kept. */
export class Tree {
  #open = [[]]; // of each level the hashes that no tile holds yet
  size = 0;
  #full; // called with (level, number, hashes) for each full tile
  #numbers = [0];

  constructor(full = () => {}) {
    this.#full = full;
  }

  async add(hash) {
    this.size += 1;
    let added = hash;
    for (let level = 0; added; level += 1) {
      const held = (this.#open[level] ??= []);
      this.#numbers[level] ??= 0;
      held.push(added);
      added = null;
      if (held.length === WIDTH) {
        const tile = joined(held);
        held.length = 0;
        await this.#full(level, this.#numbers[level]++, tile);
        added = fold(tile);
      }
    }
  }

  /** The partial tiles at the right edge: [level, number, hashes]. */
  partial() {
    const tiles = this.#open.map((held, level) => [level, this.#numbers[level], joined(held)]);
    return tiles.filter(([, , tile]) => tile.length);
  }

  root() {
    if (this.size === 0) return sha256();
    let found = null;
    for (const held of this.#open) {
      // From the right: the smallest subtrees are the last ones.
      for (let end = held.length, bit = 1; bit < WIDTH; bit *= 2) {
        if (!(held.length & bit)) continue;
        const left = fold(joined(held.slice(end - bit, end)));
        found = found === null ? left : sha256(NODE, left, found);
        end -= bit;
      }
    }
    return found;
  }
}

export function joined(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/** Bytes of a tile, which has `width` hashes. */
export function checkWidth(tile, width) {
  insist(tile, "is missing: the pack is not complete");
  insist(tile.length === width * HASH, `has not ${width} hashes of ${HASH} bytes: it was cut off or added to`);
  return tile;
}
