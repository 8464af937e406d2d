// The audit explorer: reads the same endpoints as any client. Texts from records become text nodes only.
"use strict";

const STORED_KEY = "auditrace-key";
const FILTERS = ["event_name", "initiator_id", "actor_id", "outcome", "result", "job_id", "target_id", "trace_id", "span_id", "request_id", "q", "since", "until"];
// With these, the records of one kind, trace or request are looked at: none of them is noise.
const CLOSE = ["event_name", "trace_id", "span_id", "request_id"];
// These parameters of a listing are no filters of their own.
const NO_FILTER = ["include_trail", "order", "limit"];
const element = (id) => document.getElementById(id);
const form = element("filters");
let nextCursor = null;
let shownRecord = null;
let listed = null;
// Names and values of the link that the form cannot hold.
let others = [];
// The query of the rows that are shown; `listed` is the query of the last request.
let matched = null;
let generation = 0;

// What cannot be seen, and what is written from right to left; the same as on the command line.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ud800-\udfff\ue000-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}\u{f0000}-\u{10ffff}]|\\(?=u\{)/gu;
const BACKWARD = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/gu;

function escaped(text, characters) {
  return text.replaceAll(characters, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);
}

// Prose keeps its direction.
function visible(text) {
  return escaped(text, HIDDEN);
}

// What would run is read in one direction.
function visiblePlan(text) {
  const shown = visible(text).replaceAll(/[\n\t]/g, (each) => (each === "\n" ? "\\u{a}" : "\\u{9}"));
  return /[\p{L}\p{N}]/u.test(shown.replaceAll(BACKWARD, "")) ? escaped(shown, BACKWARD) : shown;
}

function node(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function say(text) {
  element("status").textContent = text;
}

function complain(error) {
  element("problem").textContent = error ? error.message : "";
  element("problem").hidden = !error;
}

async function ask(path) {
  const key = sessionStorage.getItem(STORED_KEY);
  let response;
  try {
    response = await fetch(path, { headers: { Authorization: `Bearer ${key}` }, cache: "no-store" });
  } catch {
    throw new Error("The service does not answer: it may be restarting, or out of reach. Look again in a moment.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const error = new Error(`${answer.detail ?? response.statusText} (status ${response.status}, request ${answer.request_id ?? "unknown"})`);
  if (response.status === 401) {
    forget();
    complain(error);
  }
  throw error;
}

// The link is the query. Reads of the trail, checkpoints and streams are left out unless they are asked for.
function query() {
  const asked = state();
  asked.delete("record", asked.get("record"));
  if (!asked.has("include_trail") && !CLOSE.some((name) => asked.has(name))) asked.set("include_trail", "false");
  return asked;
}

async function list({ more = false } = {}) {
  const mine = ++generation;
  const asked = query();
  const isFiltered = [...asked.keys()].some((name) => !NO_FILTER.includes(name));
  const [first, following] = asked.get("order") === "asc" ? ["oldest", "newer"] : ["newest", "older"];
  listed = asked.toString();
  element("records-title").textContent = `${isFiltered ? "Records that match" : "Records"}, ${first} first`;
  if (!asked.has("limit")) asked.set("limit", "50");
  if (more) asked.set("cursor", nextCursor);
  say("Loading…");
  complain(null);
  element("records").setAttribute("aria-busy", "true");
  try {
    const page = await ask(`/v1/audit/records?${asked}`);
    if (mine !== generation) return;
    const before = more ? element("rows").childElementCount : 0;
    if (!more) clear();
    matched = listed;
    element("rows").append(...page.records.map(row));
    nextCursor = page.next_cursor;
    const count = element("rows").childElementCount;
    element("table").hidden = count === 0;
    element("older").hidden = nextCursor === null;
    element("older").textContent = following === "newer" ? "Newer records" : "Older records";
    const left = asked.get("include_trail") === "false" ? " Reads of the trail, checkpoints and streams are left out." : "";
    const found = `${count} ${count === 1 ? "record" : "records"}${nextCursor ? `, and there are ${following} ones` : ""}.`;
    say((count ? found : nothing(isFiltered)) + left);
    if (more) element("rows").children[before]?.querySelector("button").focus();
  } catch (error) {
    if (mine !== generation) return;
    // Rows of another query must not stand under the new title.
    if (matched !== listed) clear();
    say("");
    complain(error);
  } finally {
    if (mine === generation) element("records").removeAttribute("aria-busy");
  }
}

function clear() {
  matched = null;
  element("rows").replaceChildren();
  element("table").hidden = true;
  element("older").hidden = true;
}

function nothing(isFiltered) {
  return isFiltered ? "No record matches: change or clear the filters." : "There are no records yet.";
}

function row(record) {
  const attributes = record.attributes;
  const open = button(record.event_name, () => openRecord(record.record_id));
  const made = node("tr", {},
    node("td", {}, time(record.timestamp)),
    node("td", {}, open),
    who(attributes),
    node("td", {}, `${attributes["audit.target.type"]} `, short(attributes["audit.target.id"])),
    node("td", {}, resultMark(attributes["auditrace.result"])),
    node("td", {}, deliveryMark(record.delivery)),
    node("td", {}, trace(record)),
  );
  made.dataset.record = record.record_id;
  if (record.record_id === shownRecord) made.setAttribute("aria-current", "true");
  return made;
}

// Who asked, and for an act of a worker, which worker did it.
function who(attributes) {
  const initiator = attributes["auditrace.initiator.id"];
  const actor = attributes["audit.actor.id"];
  if (!initiator) return node("td", { title: visible(actor) }, ends(actor));
  return node("td", { title: visible(`${initiator} by ${actor}`) }, ends(initiator), " ", node("small", {}, `by ${ends(actor)}`));
}

function time(text) {
  return node("time", { dateTime: text, title: text, textContent: text.slice(0, 23).replace("T", " ") });
}

// Ids of the same time have the same begin; their ends differ.
function ends(text) {
  return visible(text).replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (id) => `…${id.slice(-8)}`);
}

function short(text) {
  const shown = ends(text);
  return node("span", { className: "id", title: visible(text), textContent: shown.length > 32 ? `${shown.slice(0, 30)}…` : shown });
}

function mark(text, kind, sign) {
  return node("span", { className: `mark ${kind}` }, node("span", { ariaHidden: "true" }, `${sign} `), text);
}

function resultMark(result) {
  if (result === "success" || result === "noop") return mark(result, "good", "✓");
  return result === "unknown" ? mark(result, "wait", "?") : mark(result, "bad", "✗");
}

function deliveryMark(delivery) {
  if (delivery === "delivered") return mark(delivery, "good", "✓");
  return delivery === "parked" ? mark(delivery, "bad", "✗") : mark(delivery, "wait", "…");
}

function trace(record) {
  const cell = node("span", { className: "id" }, filterButton("trace_id", record.trace_id, record.trace_id.slice(0, 8)));
  const link = traceLink(record, "↗", `Open the trace of ${record.event_name} at ${record.timestamp}`);
  if (link) cell.append(" ", link);
  return cell;
}

function traceLink(record, text, label) {
  const url = record.links.trace;
  if (!url || !/^https?:\/\//.test(url)) return null;
  return node("a", { href: url, rel: "noreferrer", target: "_blank", ariaLabel: label, title: label }, text);
}

function filterButton(name, value, text) {
  const made = button(text, () => remember({ [name]: value }));
  made.title = `Show the records with this ${name}`;
  return made;
}

async function show(recordId) {
  const isOther = shownRecord !== recordId;
  shownRecord = recordId;
  for (const each of element("rows").children) {
    if (each.dataset.record === recordId) each.setAttribute("aria-current", "true");
    else each.removeAttribute("aria-current");
  }
  try {
    const record = await ask(`/v1/audit/records/${encodeURIComponent(recordId)}`);
    const parts = await detail(record);
    if (shownRecord !== recordId) return;
    fill(record.event_name, ...parts);
  } catch (error) {
    if (shownRecord !== recordId) return;
    fill("Record", node("p", { className: "problem", role: "alert" }, error.message));
  }
  if (isOther) {
    element("detail").focus();
    element("detail").scrollTop = 0;
  }
}

function fill(title, ...parts) {
  document.title = `${title} · auditrace explorer`;
  element("detail-title").textContent = title;
  element("detail-content").replaceChildren(...parts);
  element("detail").hidden = false;
}

async function detail(record) {
  const attributes = record.attributes;
  const parts = [
    node("p", {}, resultMark(attributes["auditrace.result"]), " ", deliveryMark(record.delivery), " ", await hashMark(record)),
  ];
  if (attributes["auditrace.reason"]) parts.push(prose(attributes["auditrace.reason"]));
  if (attributes["auditrace.notes"]) parts.push(prose(attributes["auditrace.notes"]));
  parts.push(ways(record), ...plan(attributes["auditrace.job.plan"]));
  const changes = Object.entries(attributes["auditrace.changes"] ?? {});
  if (changes.length) {
    const rows = changes.map(([field, change]) => node("tr", {},
      node("th", { scope: "row" }, field),
      node("td", { className: "value" }, text(change.from)),
      node("td", { className: "value" }, text(change.to))));
    parts.push(node("h3", {}, "Changes"), table(["Field", "From", "To"], rows, "changes"));
  }
  const known = { "record id": record.record_id, time: record.timestamp, stream: record.stream_id, number: record.sequence_number,
    "record hash": record.record_hash, trace: record.trace_id, span: record.span_id };
  const others = Object.entries(attributes).filter(([name]) => name !== "auditrace.changes");
  const rows = [...Object.entries(known), ...others].map(([name, value]) => node("tr", {},
    node("th", { scope: "row" }, name), node("td", { className: "value" }, text(value))));
  parts.push(node("h3", {}, "Everything that is known"), table(["Name", "Value"], rows));
  parts.push(node("details", {}, node("summary", {}, "Body, byte for byte"), node("pre", {}, record.body)));
  return parts;
}

function prose(text) {
  return node("p", { className: "reason", dir: "auto" }, visible(text));
}

function plan(canonical) {
  let members;
  try {
    members = Object.entries(JSON.parse(canonical));
  } catch {
    // There is none, or it was cut.
    return [];
  }
  const lines = members.flatMap(([name, value]) =>
    Array.isArray(value) && value.length ? value.map((each, index) => [`${name} ${index}`, each]) : [[name, value]]);
  const rows = lines.map(([name, value]) => node("tr", {},
    node("th", { scope: "row" }, name), node("td", { className: "value" }, visiblePlan(typeof value === "string" ? value : JSON.stringify(value)))));
  return [node("h3", {}, "Plan"), table(["Part", "Value"], rows, "plan")];
}

// The links from a record.
function ways(record) {
  const attributes = record.attributes;
  const found = [
    traceLink(record, "Open the trace ↗", "Open the trace"),
    filterButton("trace_id", record.trace_id, "Same trace"),
    button("Same span", () => remember({ trace_id: record.trace_id, span_id: record.span_id })),
    attributes["auditrace.request.id"] && filterButton("request_id", attributes["auditrace.request.id"], "Same request"),
    attributes["auditrace.job.id"] && filterButton("job_id", attributes["auditrace.job.id"], "Story of the job"),
    filterButton("actor_id", attributes["audit.actor.id"], "Same actor"),
    attributes["auditrace.initiator.id"] && filterButton("initiator_id", attributes["auditrace.initiator.id"], "Asked by the same"),
    recordButton(attributes["auditrace.initiator.record_id"], "The request that caused it"),
    recordButton(attributes["audit.sequence.prev_record_id"], "The one before in its stream"),
  ];
  return node("ul", { className: "ways" }, ...found.filter(Boolean).map((way) => node("li", {}, way)));
}

function recordButton(recordId, label) {
  return recordId ? button(label, () => openRecord(recordId)) : null;
}

function button(label, act) {
  const made = node("button", { type: "button", className: "link", textContent: label });
  made.addEventListener("click", act);
  return made;
}

function table(titles, rows, className = "") {
  const head = node("thead", {}, node("tr", {}, ...titles.map((title) => node("th", { scope: "col" }, title))));
  return node("div", { className: "scroll" }, node("table", { className }, head, node("tbody", {}, ...rows)));
}

function text(value) {
  if (value === undefined) return "–";
  return visible(typeof value === "string" ? value : JSON.stringify(value));
}

async function hashMark(record) {
  // Browsers offer hashing on https and on localhost only.
  if (!globalThis.crypto?.subtle) return mark("hash not checked here", "wait", "?");
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(record.body));
  const hex = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex === record.record_hash ? mark("hash fits the body", "good", "✓") : mark("hash does not fit the body", "bad", "✗");
}

// The fragment holds what is shown, and never reaches a server: pages can be linked and the back button works.
function state() {
  return new URLSearchParams(location.hash.slice(1));
}

function openRecord(recordId) {
  const wanted = state();
  wanted.set("record", recordId);
  remember(wanted);
}

function remember(wanted) {
  const fragment = new URLSearchParams(wanted).toString();
  if (fragment !== location.hash.slice(1)) {
    location.hash = fragment;
  } else {
    listed = null;
    follow();
  }
}

function follow() {
  if (!sessionStorage.getItem(STORED_KEY)) return;
  const wanted = state();
  showFilters(wanted);
  if (wanted.has("span_of")) {
    followSpan(wanted);
    return;
  }
  if (query().toString() !== listed) list();
  if (wanted.has("record")) show(wanted.get("record"));
  else hideDetail();
}

function showFilters(wanted) {
  for (const name of FILTERS) form.elements[name].value = "";
  form.elements.include_trail.checked = false;
  const held = new Set();
  others = [];
  for (const [name, value] of wanted) {
    if (!held.has(name) && hold(name, value)) held.add(name);
    else others.push([name, value]);
  }
  const shown = others.map(([name, value]) => visible(`${name}=${value}`)).join(", ");
  element("others-text").textContent = `Also from the link: ${shown}`;
  element("others").hidden = others.length === 0;
}

// Puts a value of the link into the form, and returns whether the form has exactly this value.
function hold(name, value) {
  if (name === "record" || name === "span_of") return true;
  if (name === "include_trail") {
    form.elements.include_trail.checked = value === "true";
    return value === "true";
  }
  if (!FILTERS.includes(name) || !value) return false;
  const field = form.elements[name];
  field.value = value;
  if (field.value.trim() === value) return true;
  field.value = "";
  return false;
}

// A link from a span: trace backends have its records only as the text of the attribute audit.record.id, an array.
async function followSpan(wanted) {
  const mine = ++generation;
  const [recordId] = wanted.get("span_of").match(/[\w-]+/) ?? [""];
  try {
    const record = await ask(`/v1/audit/records/${encodeURIComponent(recordId)}`);
    if (mine !== generation) return;
    wanted.delete("span_of");
    wanted.set("trace_id", record.trace_id);
    wanted.set("span_id", record.span_id);
    wanted.set("record", record.record_id);
    location.replace(`#${wanted}`);
  } catch (error) {
    if (mine !== generation) return;
    // A listing that was running when this began leaves all of it to this.
    listed = null;
    clear();
    element("records").removeAttribute("aria-busy");
    say("");
    complain(error);
  }
}

function hideDetail() {
  shownRecord = null;
  document.title = "auditrace explorer";
  element("detail").hidden = true;
  for (const each of element("rows").children) each.removeAttribute("aria-current");
}

function closeDetail() {
  const opener = [...element("rows").children].find((each) => each.dataset.record === shownRecord);
  const wanted = state();
  wanted.delete("record");
  remember(wanted);
  (opener?.querySelector("button") ?? element("records")).focus();
}

function welcome() {
  const key = sessionStorage.getItem(STORED_KEY);
  element("sign-in").hidden = key !== null;
  element("signed-in").hidden = key === null;
  element("again").hidden = key === null;
  if (key === null) {
    say(state().has("record") ? "Enter an API key to see this record." : "Enter an API key to see the records of its tenant.");
    return;
  }
  element("key-name").textContent = key.startsWith("atk_") ? `Key …${key.split("_")[1].slice(-8)}` : "Signed in by token";
  follow();
}

function forget() {
  sessionStorage.removeItem(STORED_KEY);
  listed = null;
  generation += 1;
  element("records").removeAttribute("aria-busy");
  clear();
  complain(null);
  hideDetail();
  welcome();
  element("key").focus();
}

element("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(STORED_KEY, element("key").value.trim());
  element("key").value = "";
  complain(null);
  welcome();
  element("records").focus();
});
element("sign-out").addEventListener("click", forget);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = [];
  for (const name of FILTERS) if (form.elements[name].value.trim()) wanted.push([name, form.elements[name].value.trim()]);
  if (form.elements.include_trail.checked) wanted.push(["include_trail", "true"]);
  remember([...wanted, ...others]);
});
form.elements.include_trail.addEventListener("change", () => form.requestSubmit());
form.addEventListener("reset", () => setTimeout(() => remember({})));
element("drop").addEventListener("click", () => {
  others = [];
  form.requestSubmit();
  element("records").focus();
});
element("older").addEventListener("click", () => list({ more: true }));
element("again").addEventListener("click", () => (state().has("span_of") ? follow() : list()));
element("close").addEventListener("click", closeDetail);
element("skip").addEventListener("click", (event) => {
  // Without the fragment: it holds what is shown.
  event.preventDefault();
  element("records").focus();
});
element("records").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const rows = [...element("rows").children];
  const at = rows.findIndex((each) => each.contains(document.activeElement));
  const next = rows[at < 0 ? 0 : at + step];
  if (!next) return;
  event.preventDefault();
  next.querySelector("button").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !element("detail").hidden) closeDetail();
});
globalThis.addEventListener("hashchange", follow);
welcome();
