// What the page knows of the host: a row for each VM, and the events as they come. The
// rows are read once; then an event says which to read again.
import * as api from "./api.js";
import { trouble } from "./dom.js";

export const rows = new Map(); // by UUID
export let count = 0; // how many there are, while they are read for the first time
export let loaded = false;
export const newest = []; // the last events, the oldest first
const keep = 2000; // of them

const told = new EventTarget();

// on calls f on "rows" (they are others now), "event" (with it as detail) and "link".
export function on(what, f) {
  told.addEventListener(what, f);
  return () => told.removeEventListener(what, f);
}
const tell = (what, detail) => told.dispatchEvent(new CustomEvent(what, { detail }));

// A row has what the table shows and sorts by, made once.
function take(o) {
  if (!o.state) {
    rows.delete(o.uuid);
    return;
  }
  const s = o.state;
  rows.set(o.uuid, {
    uuid: o.uuid, alias: s.alias || "", state: s.state || "", bytes: Number(s.bytes), limit: Number(s.bytes_limit),
    keys: Number(s.keys), connections: Number(s.connections), changed: Date.parse(o.changed),
    text: ((s.alias || "") + " " + o.uuid + " " + (s.state || "")).toLowerCase(),
  });
}

// load reads all rows; where that is under way already, once more after it.
let loading = false;
let again = false;
async function load() {
  again = loading;
  if (loading) return;
  loading = true;
  try {
    do {
      again = false;
      await readAll().catch((e) => {
        if (!again) throw e;
      });
    } while (again);
  } finally {
    loading = false;
  }
}

async function readAll() {
  const before = [...rows.keys()]; // of a VM that is made meanwhile an event tells
  const seen = new Set();
  let said = performance.now();
  await api.rows(null, (o) => {
    seen.add(o.uuid);
    take(o);
    if (performance.now() - said > 200) {
      said = performance.now();
      tell("rows");
    }
  }, (n) => (count = n));
  for (const uuid of before) if (!seen.has(uuid)) rows.delete(uuid);
  loaded = true;
  tell("rows");
}

// VMs whose rows are out of date. They are read again together, twice a second at most
// and so many at a time that an address holds them.
const old = new Set();
let reading = false;
const together = 100;

export function refresh(uuids) {
  for (const uuid of uuids) old.add(uuid);
  if (!reading && old.size) {
    reading = true;
    setTimeout(readAgain, 500);
  }
}

async function readAgain() {
  const of = [...old].slice(0, together);
  for (const uuid of of) old.delete(uuid);
  try {
    await api.rows(of, take);
    tell("rows");
  } catch (e) {
    if (e.status === 401) return;
  }
  reading = false;
  refresh([]);
}

// follow reads the events for as long as the page is there. After each break all rows are
// read again, since events may be missing.
export async function follow() {
  for (let pause = 500; ; pause = Math.min(2 * pause, 10000)) {
    let why = "the stream of events has ended";
    try {
      await api.events(event, () => {
        pause = 500;
        trouble("");
        tell("link", true);
        load().catch((e) => trouble(e.message));
      });
    } catch (e) {
      why = e.message;
      if (e.status === 401) {
        trouble(why);
        tell("link", false);
        return;
      }
    }
    trouble(why + " Trying again.");
    tell("link", false);
    await new Promise((go) => setTimeout(go, pause));
  }
}

function event(o) {
  newest.push(o);
  if (newest.length > 2 * keep) newest.splice(0, newest.length - keep);
  if (o.type === "lost") load().catch((e) => trouble(e.message));
  else if (o.vm) refresh([o.vm]);
  tell("event", o);
}
