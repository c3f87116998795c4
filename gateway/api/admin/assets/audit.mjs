// What JavaScript adds to the page of an audit log: the timeline, and the verifier. Text only ever becomes text: no
// HTML is made from what the log says.

import { ServerError, download } from "./pack.mjs";

const { org, first } = document.querySelector("main").dataset;
const place = (id) => document.getElementById(id);

// Trusted Types: the one script URL that this page may start.
const scripts = globalThis.trustedTypes?.createPolicy("orgate", { createScriptURL: () => "/web/judge.mjs" });

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// -- the timeline -----------------------------------------------------------------------------------------------------

const UNITS = new Map([
  [3_600, "hour"],
  [86_400, "day"],
  [604_800, "week"],
]);

function drawing(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const shown = (seconds, unit) => {
  const text = new Date(seconds * 1000).toISOString();
  return unit === 3_600 ? `${text.slice(0, 10)} ${text.slice(11, 16)}` : text.slice(0, 10);
};
const typed = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16);

/** A link to the entries of one bar, under the filter of this page. */
function narrowed(at, unit) {
  const query = new URLSearchParams(location.search);
  query.delete("after");
  query.set("since", typed(at));
  query.set("until", typed(at + unit));
  return `${location.pathname}?${query}`;
}

function bars({ unit_s: unit, bars: found }) {
  const first = found[0].at;
  const last = found.at(-1).at;
  const columns = (last - first) / unit + 1;
  const highest = Math.max(...found.map(({ count }) => count));
  const height = (count) => (count ? Math.max((count / highest) * 96, 1) : 0);
  const width = 1000 / columns;
  const drawn = found.map(({ at, count, wrong }) => {
    const x = ((at - first) / unit) * width;
    const bar = (name, many) =>
      drawing("rect", { class: name, x, width: Math.max(width * 0.85, 0.5), y: 100 - height(many), height: height(many) });
    const said = `${shown(at, unit)}: ${count} ${count === 1 ? "entry" : "entries"}${wrong ? `, ${wrong} refused or failed` : ""}`;
    const title = drawing("title", {}, said);
    return drawing("a", { href: narrowed(at, unit), "aria-label": said }, title, bar("bar", count), bar("bar wrong", wrong));
  });
  const picture = drawing("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none" }, ...drawn);
  picture.setAttribute("aria-labelledby", "timeline-text");
  const scale = element("p", "", { class: "scale" });
  scale.append(element("span", shown(first, unit)), element("span", shown(last, unit)));
  return [picture, scale];
}

async function timeline() {
  const text = place("timeline-text");
  place("timeline").hidden = false;
  const answer = await fetch(`${location.pathname}/timeline${location.search}`, { credentials: "same-origin" });
  const found = await answer.json();
  if (!answer.ok) {
    text.textContent = found.detail;
    return;
  }
  const many = found.bars.reduce((sum, { count }) => sum + count, 0);
  const wrong = found.bars.reduce((sum, { wrong: bad }) => sum + bad, 0);
  const rest = found.complete ? "" : " The log goes on after these: narrow the filter down, or begin at a later entry.";
  const looked = `entries ${found.start} to ${Math.max(found.end - 1, found.start)}`;
  text.textContent = many
    ? `${many} of the ${looked} match, by the ${UNITS.get(found.unit_s)} (UTC), ${wrong} of them refused or failed.${rest}`
    : `None of the ${looked} matches.${rest}`;
  if (many) place("timeline-bars").replaceChildren(...bars(found));
}

// -- the verifier -----------------------------------------------------------------------------------------------------

function judge(files, known, progress) {
  return new Promise((settle) => {
    const url = "/web/judge.mjs";
    const worker = new Worker(scripts ? scripts.createScriptURL(url) : url, { type: "module" });
    const end = (said) => {
      worker.terminate();
      settle(said);
    };
    worker.addEventListener("error", () => end({ failed: "The verifier could not be started." }));
    worker.addEventListener("message", ({ data }) => (data.all === undefined ? end(data) : progress(data.done, data.all)));
    worker.postMessage({ files, known }, [files.get("entries.jsonl").buffer]);
  });
}

function list(title, texts) {
  const items = element("ul", "");
  items.append(...texts.map((text) => element("li", text)));
  return [element("h3", title), items];
}

function report({ ok, entries, checkpoint_size: size, faults, proven, unproven }) {
  const many = faults.length === 1 ? "1 fault" : `${faults.length} faults`;
  const said = ok
    ? `Good: ${entries} entries of ${org}, whole, in order, unchanged, as signed in the checkpoint over ${size}.`
    : `Wrong: the log of ${org} does not verify, ${many}.`;
  const shownFaults = faults.map(({ where, what }) => `${where}: ${what}`);
  return [
    element("p", said, { class: ok ? "good" : "bad" }),
    ...(faults.length ? list("What is wrong", shownFaults) : []),
    ...(proven.length ? list("Proven besides", proven) : []),
    ...(unproven.length ? list("Not proven", unproven) : []),
  ];
}

/** What the auditor has from elsewhere; a textarea ends lines with a line feed, as notes and policies do. */
function given() {
  const text = (id) => place(id).value.trim();
  const known = {};
  if (text("key")) known.key = text("key");
  if (text("witnesses")) known.witnesses = new TextEncoder().encode(`${text("witnesses")}\n`);
  if (text("kept")) known.checkpoints = new Map([["the checkpoint that you kept", `${text("kept")}\n`]]);
  return known;
}

async function verify() {
  const known = given();
  const bar = place("verify-progress");
  const progress = (share, done, all) => (bar.value = (share + (all ? done / all : 1)) / 2);
  bar.value = 0;
  bar.hidden = false;
  place("verdict").replaceChildren(element("p", "Downloading and checking…"));
  try {
    if (first !== "0")
      throw new ServerError(
        `Entries before ${first} are past their retention, and a browser verifies whole logs. ` +
          "Use orgate audit export and orgate audit verify.",
      );
    const { files, remark } = await download(org, (done, all) => progress(0, done, all));
    const said = await judge(files, known, (done, all) => progress(1, done, all));
    if (said.failed) throw new ServerError(said.failed);
    const { unproven } = said.verdict;
    place("verdict").replaceChildren(...report({ ...said.verdict, unproven: remark ? [...unproven, remark] : unproven }));
  } catch (error) {
    const text = error instanceof ServerError ? error.message : "The download broke off; try again.";
    place("verdict").replaceChildren(element("p", `Not verified: ${text}`, { class: "bad" }));
  }
  bar.hidden = true;
  place("verdict").focus();
}

place("without").hidden = true;
place("verify").hidden = false;
place("verify-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  await verify();
  button.disabled = false;
});
timeline().catch(() => (place("timeline-text").textContent = "The timeline could not be fetched; load the page again."));
