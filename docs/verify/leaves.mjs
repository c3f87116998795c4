// The hash tiles of a pack, read once and in order: the hash of each leaf, and the roots that follow from them.

import { Refusal, insist } from "./canonical.mjs";
import { base64, hex } from "./note.mjs";
import { Sha256 } from "./sha256.mjs";
import { HASH, Tree, WIDTH, checkWidth, tilePath } from "./tree.mjs";

/** The hashes of all leaves, from the tiles of level 0, or in format 1 from the lines. Tiles above follow from them. */
export class Leaves {
  constructor(pack, manifest, kept, fault) {
    this.roots = new Map(); // of the sizes that were asked for
    this.wanted = new Set(kept.map(({ size }) => size));
    this.pack = pack;
    this.manifest = manifest;
    this.fault = fault;
    this.tiled = manifest.tiles.length > 0;
    this.hashes = manifest.tiles.map(() => new Sha256());
    this.tree = new Tree((level, number, tile) => this.follows(level, number, tile));
    this.from = 0;
    this.tile = null;
    this.broken = false;
    this.remember();
  }

  remember() {
    if (this.wanted.has(this.tree.size)) this.roots.set(this.tree.size, base64(this.tree.root()));
  }

  /** Insist that leaf `index` has this hash. Asked for rising indexes. */
  async check(index, leaf) {
    insist(index < this.manifest.size, "is beyond the end of the log");
    if (!this.tiled) {
      await this.tree.add(leaf);
      return this.remember();
    }
    while (index >= this.tree.size && !this.broken) await this.next();
    if (this.broken) return;
    const at = (index - this.from) * HASH;
    const same = leaf.every((byte, i) => byte === this.tile[at + i]);
    insist(same, "is not what the log holds at this place: its hash is not the one in the tiles");
  }

  /** The next tile of leaves. One that is missing or cut off is no tree's: nothing after it is looked at. */
  async next() {
    this.from = this.tree.size;
    const width = Math.min(this.manifest.size - this.from, WIDTH);
    this.tile = await this.read(0, this.from / WIDTH, width);
    for (let at = 0; this.tile && !this.broken && at < this.tile.length; at += HASH) {
      await this.tree.add(this.tile.subarray(at, at + HASH));
      this.remember();
    }
  }

  /** A tile of the pack. */
  async read(level, number, width) {
    const path = tilePath(level, number, width);
    try {
      const tile = checkWidth(await this.pack.read(path), width);
      this.hashes[level].update(tile);
      return tile;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.fault(path, error.message);
      this.broken = true;
      return null;
    }
  }

  /** A tile as it follows from those below it, against the one that is there. */
  async follows(level, number, tile) {
    if (level === 0 || !this.tiled) return;
    const found = await this.read(level, number, tile.length / HASH);
    if (found && !found.every((byte, i) => byte === tile[i]))
      this.fault(tilePath(level, number, tile.length / HASH), "does not follow from the tiles below it");
  }

  /** The root of the whole tree as base64; null when the tiles do not make one. */
  async finish(progress) {
    const { size, tiles } = this.manifest;
    while (this.tiled && this.tree.size < size && !this.broken) {
      await this.next();
      progress(this.tree.size, size);
    }
    if (!this.broken) for (const partial of this.tree.partial()) await this.follows(...partial);
    progress(size, size);
    if (this.broken) return null;
    tiles.forEach(({ sha256: hash }, level) => {
      if (hex(this.hashes[level].digest()) !== hash)
        this.fault(`tile/${level}`, "its SHA-256 is not the one in the manifest: it was changed");
    });
    return base64(this.tree.root());
  }
}
