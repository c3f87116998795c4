// Canonical JSON: RFC 8785 without null and fractions, as docs/reference/audit-log.md restricts it. A value has one
// spelling, and any other is refused where it differs; JSON.parse could not tell, and keeps one of two equal names.

export const LINE_MAX = 65_535; // bytes of a line without its newline
const DEPTH_MAX = 4; // objects and arrays within each other, the outermost counted

/** What a pack must not hold, in words. */
export class Refusal extends Error {}

export function insist(condition, what) {
  if (!condition) throw new Refusal(what);
}

const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function utf8(bytes) {
  try {
    return DECODER.decode(bytes);
  } catch {
    throw new Refusal("is not UTF-8");
  }
}

// The one spelling of a string: what need not be escaped is not, short escapes where there are, else \u00 in lower case.
const STRING = /"[^"\\\u0000-\u001f]*(?:\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))[^"\\\u0000-\u001f]*)*"/y;
const INTEGER = /0|-?[1-9][0-9]*/y;
const NAME = /^[@A-Za-z0-9_.-]{1,64}$/;

/** Read one line that must be an object in its one spelling; objects become Maps. `size`: its bytes. */
export function parseCanonical(text, size) {
  insist(size <= LINE_MAX, `the line has ${size} bytes, more than ${LINE_MAX}`);
  let at = 0;
  const refuse = (what) => {
    let json = true;
    try {
      JSON.parse(text);
    } catch {
      json = false;
    }
    throw new Refusal(`${json ? "JSON, but not in its canonical form" : "not JSON"}: ${what} at character ${at}`);
  };
  const take = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };
  const expect = (mark) => (text.startsWith(mark, at) ? (at += mark.length) : refuse(`expected ${mark}`));
  const string = () => {
    const raw = take(STRING) ?? refuse("expected a string in its one spelling");
    return raw.includes("\\") ? JSON.parse(raw) : raw.slice(1, -1);
  };
  const list = (close, item) => {
    at += 1;
    if (text[at] === close) return void (at += 1);
    for (item(); text[at] === ","; item()) at += 1;
    expect(close);
  };
  const value = (depth) => {
    const first = text[at];
    if (first === '"') return string();
    if (first === "t") return expect("true") && true;
    if (first === "f") return expect("false") && false;
    if (first !== "{" && first !== "[") {
      const number = Number(take(INTEGER) ?? refuse("expected a value (no null, no fraction)"));
      return Number.isSafeInteger(number) ? number : refuse("an integer beyond 2^53 - 1");
    }
    if (depth === 0) refuse(`nested deeper than ${DEPTH_MAX}`);
    const found = first === "{" ? new Map() : [];
    let last = "";
    if (first === "[") list("]", () => found.push(value(depth - 1)));
    else
      list("}", () => {
        const name = string();
        if (!NAME.test(name)) refuse("a name that is not made of letters, digits and @ _ . -");
        if (found.has(name)) refuse("a name that appears twice in one object");
        if (name < last) refuse("a name that is not in its order");
        expect(":");
        found.set((last = name), value(depth - 1));
      });
    return found;
  };
  const found = value(DEPTH_MAX);
  if (at !== text.length) refuse("something after the value");
  insist(found instanceof Map, "not a JSON object");
  return found;
}
