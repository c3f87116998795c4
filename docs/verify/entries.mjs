// The lines of a pack, one after the other: their bytes, their places in the log, and what the log says of itself.

import { Refusal, parseCanonical, utf8 } from "./canonical.mjs";
import { hex, quoted } from "./note.mjs";
import { sha256 } from "./sha256.mjs";
import { leafHash } from "./tree.mjs";

const ZEROS = "0".repeat(64);
const MOVED = "an entry was repeated, inserted or moved";
const GONE = "entries are missing or out of order before it";

export class Entries {
  number = 0; // lines so far
  counted = []; // days whose count was held against the entries

  constructor(manifest, fault) {
    this.manifest = manifest;
    this.fault = fault;
    this.last = manifest.start - 1; // index of the last entry
    this.prev = null; // SHA-256 of the last line
    this.boots = new Map(); // the last number of each worker's spool
    this.days = { base: 0, next: 0, others: [], end: 0, day: "", known: true };
  }

  /** Judge the next line; its place and its leaf's hash, null when nobody can say its place. */
  take(line, ended) {
    const { manifest } = this;
    const filtered = manifest.filter.size > 0;
    let place = this.last + 1;
    this.number += 1;
    const at = `entries.jsonl line ${this.number}`;
    let where = filtered ? at : `${at} (entry ${place})`;
    let known = !filtered;
    try {
      const entry = parseCanonical(utf8(line), line.length);
      const index = entry.get("index");
      if (filtered && typeof index === "number" && index >= place && index < manifest.end) place = index;
      where = `${at} (entry ${place})`;
      known = true;
      for (const what of this.judge(entry, place)) this.fault(where, what);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.fault(where, error.message);
    }
    if (!ended) this.fault(where, "does not end with a newline: the file was cut off, or the line is too long");
    this.prev = hex(sha256(line));
    if (!known) return null;
    this.last = place;
    return { where, place, leaf: leafHash(line) };
  }

  *judge(entry, place) {
    const { org, filter } = this.manifest;
    if (entry.get("schema") !== 1) yield "its schema is not 1";
    if (entry.get("org") !== org) yield `it belongs to another organization than ${quoted(org)}`;
    const index = entry.get("index");
    if (typeof index !== "number") yield "it has no index";
    else if (index !== place) yield `its index is ${index}, expected ${place}: ${index > place ? GONE : MOVED}`;
    const prev = place === 0 ? ZEROS : place === this.last + 1 ? this.prev : null;
    if (prev !== null && entry.get("prev") !== prev)
      yield "its `prev` is not the hash of the entry before it: one of the two was changed";
    if (entry.has("spool")) yield* this.repeated(entry.get("spool"));
    for (const [name, wanted] of filter)
      if (!matches(entry, name, wanted)) yield `does not match the filter: its \`${name}\` is another`;
    yield* this.count(entry, place);
  }

  *repeated(spool) {
    const [boot, number] = Array.isArray(spool) && spool.length === 2 ? spool : [];
    if (typeof boot !== "string" || typeof number !== "number") yield "its `spool` is not a boot and a number";
    else if (number > (this.boots.get(boot) ?? 0)) this.boots.set(boot, number);
    else yield "its receipt is an entry already, or its spool numbers go backwards";
  }

  /** Daily counts. Of the entries [base, next), none of which is left out, `others` are no requests. */
  *count(entry, place) {
    const { days } = this;
    if (place !== days.next) Object.assign(days, { base: place, others: [], known: false });
    if (entry.get("action") === "audit.day") yield* this.day(entry.get("detail"), place);
    if (!entry.has("spool")) days.others.push(place);
    days.next = place + 1;
  }

  *day(detail, place) {
    const { days } = this;
    const { day, start, end, requests } = detail instanceof Map ? Object.fromEntries(detail) : {};
    const numbers = [start, end, requests].every((n) => typeof n === "number");
    const dated = typeof day === "string" && /^[0-9]{4}-[0-9]{2}-[0-9]{2}$/.test(day);
    if (!(numbers && dated && 0 <= start && start <= end && end <= place))
      return yield "its `detail` is no count of a day";
    if (days.known && (start !== days.end || day <= days.day))
      yield `counts entries [${start}, ${end}) as ${day}, but the count before ended before entry ${days.end}`;
    if (start >= days.base) {
      const there = end - start - days.others.filter((other) => start <= other && other < end).length;
      if (there === requests) this.counted.push(day);
      else yield `counts ${requests} requests on ${day}, and entries [${start}, ${end}) hold ${there}`;
    }
    const base = Math.max(days.base, end);
    Object.assign(days, { base, end, day, known: true, others: days.others.filter((other) => other >= base) });
  }
}

function matches(entry, name, wanted) {
  if (name === "since" || name === "until") {
    const at = entry.get("@timestamp");
    return typeof at === "number" && (name === "since" ? at >= wanted * 1000 : at < wanted * 1000);
  }
  const found = entry.get(name);
  return typeof found === "string" && (Array.isArray(wanted) ? wanted.includes(found) : found === wanted);
}
