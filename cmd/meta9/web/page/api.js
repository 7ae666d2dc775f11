// What the page asks `meta9 web` for. The key lives as long as the tab does, for this
// address and port only.

const slot = "meta9-key";
let key = sessionStorage.getItem(slot) || "";

// Trouble is why something that was asked for did not happen.
export class Trouble extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export const isOpen = () => key !== "";

// open gives the one-time token for a key.
export async function open(token) {
  const got = await call("/api/open", { method: "POST", body: JSON.stringify({ token }) });
  const { key: given, readOnly } = await got.json();
  key = given;
  sessionStorage.setItem(slot, key);
  sessionStorage.setItem("meta9-read-only", readOnly ? "yes" : "");
}

export const readOnly = () => sessionStorage.getItem("meta9-read-only") === "yes";

async function call(path, options = {}) {
  let got;
  try {
    got = await fetch(path, { ...options, headers: { Authorization: "Bearer " + key } });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Trouble(0, "'meta9 web' does not answer: has it been stopped?");
  }
  if (got.ok) return got;
  if (got.status === 401) sessionStorage.removeItem(slot);
  let text = got.statusText;
  try {
    text = (await got.json()).error;
  } catch { /* what came was no answer of ours; its status has to do */ }
  throw new Trouble(got.status, text);
}

const vmPath = (uuid, rest = "") => "/api/vms/" + encodeURIComponent(uuid) + rest;

export const status = async () => (await call("/api/status")).json();
export const vm = async (uuid) => (await call(vmPath(uuid))).json();
export const attachLines = async (uuid) => (await (await call(vmPath(uuid, "/attach"))).json()).lines;

export async function value(uuid, space, name) {
  const q = new URLSearchParams({ space, name });
  return (await call(vmPath(uuid, "/value?" + q))).json();
}

// txn does a transaction; a condition that does not hold is a Trouble of status 409.
export async function txn(uuid, conditions, parts) {
  await call(vmPath(uuid, "/txn"), { method: "POST", body: JSON.stringify({ if: conditions, do: parts }) });
}

// rows calls take with each row of the VMs, of all or of those named, and count with
// their number first.
export async function rows(of, take, count = () => {}) {
  const query = of ? "?" + new URLSearchParams({ of: of.join(",") }) : "";
  await lines(await call("/api/vms" + query), (o) => {
    if (o.error) throw new Trouble(0, o.error);
    if (o.count !== undefined) count(o.count);
    else take(o);
  });
}

// events calls take with each event until the stream ends; begun, when it has begun.
export async function events(take, begun, signal) {
  const got = await call("/api/events", { signal });
  begun();
  await lines(got, take);
}

// lines calls take with each line of JSON of an answer.
async function lines(got, take) {
  const reader = got.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value: text, done } = await reader.read();
    if (done) return;
    const all = (rest + text).split("\n");
    rest = all.pop();
    for (const line of all) if (line) take(JSON.parse(line));
  }
}
