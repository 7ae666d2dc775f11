// One VM: what it is, its keys, one of them to edit, its events, and how it is attached.
import * as api from "./api.js";
import * as host from "./host.js";
import * as log from "./log.js";
import { bytes, editable, el, time, visible, visibleLines } from "./dom.js";

// secret tells whether a value is not to be seen by who looks over a shoulder.
const secret = (space, name) => name.endsWith("_pw") || space === "internal";

// show fills main with the VM; what it gives takes it away.
export function show(main, uuid) {
  const title = el("h2", { tabIndex: -1 }, uuid);
  const state = el("dl");
  const keys = el("tbody");
  const panel = el("section", { "aria-label": "The key" });
  const add = el("button", { type: "button", onclick: create, disabled: api.readOnly() }, "New key");
  const lines = el("div");
  const stop = [];
  main.replaceChildren(
    el("p", {}, el("a", { href: "#vms" }, "All VMs")), title,
    el("div", { className: "two" },
      el("section", { "aria-label": "Keys" },
        state,
        el("h3", {}, "Keys"),
        el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Key"), el("th", { scope: "col", className: "number" }, "Size"), el("th", { scope: "col" }, "By"), el("th", { scope: "col" }, "Changed"))), keys),
        el("p", {}, add)),
      el("div", {}, panel)),
    el("h3", {}, "Events"), log.list(main, (o) => o.vm === uuid, stop),
    lines);
  let open = null; // the key in the panel: { space, name }
  let gone = false;

  // read reads the VM again.
  async function read() {
    let o;
    try {
      o = await api.vm(uuid);
    } catch (e) {
      if (e.status === 404) {
        gone = true;
        panel.replaceChildren();
        state.replaceChildren();
        keys.replaceChildren();
        title.textContent = uuid + ": there is no such VM (any more)";
        add.disabled = true;
      }
      return;
    }
    const s = o.state;
    title.textContent = s.alias ? visible(s.alias) : uuid;
    const facts = [["UUID", uuid], ["State", s.state], ["Keys", s.keys], ["Metadata", bytes(s.bytes) + " of " + bytes(s.bytes_limit)],
      ["Connections", s.connections], ["Sessions", s.sessions + (s.sessions_parked > 0 ? ", " + s.sessions_parked + " parked" : "")]];
    state.replaceChildren(...facts.flatMap(([n, v]) => [el("dt", {}, n), el("dd", {}, visible(v))]));
    const had = document.activeElement?.dataset?.key;
    keys.replaceChildren(...(o.keys || []).map((k) => {
      const id = k.space + "/" + k.name;
      const pick = el("button", { type: "button", className: "name", onclick: () => edit(k.space, k.name) }, (k.space === "internal" ? "internal/" : "") + visible(k.name));
      pick.dataset.key = id;
      const line = el("tr", {}, el("td", {}, pick), el("td", { className: "number" }, bytes(k.size)), el("td", {}, visible(k.by)), el("td", {}, time(k.changed)));
      line.classList.toggle("current", open?.space === k.space && open?.name === k.name);
      return line;
    }));
    if (had) [...keys.querySelectorAll("button")].find((b) => b.dataset.key === had)?.focus();
  }

  // edit shows a key in the panel.
  async function edit(space, name) {
    open = { space, name };
    panel.replaceChildren(el("p", {}, "Reading ", visible(name), " ..."));
    read();
    try {
      const v = await api.value(uuid, space, name);
      if (open?.space === space && open?.name === name) field(space, name, v);
    } catch (e) {
      if (open?.space === space && open?.name === name) panel.replaceChildren(notice(e.message));
    }
  }

  // field shows a value of which v.version is what the reader has seen.
  function field(space, name, v) {
    const said = el("div", { role: "status" });
    const head = [el("h3", { tabIndex: -1 }, (space === "internal" ? "internal/" : "") + visible(name)),
      el("p", { className: "mono" }, time(v.changed) + " by " + visible(v.by))];
    const asText = v.text !== undefined && editable(v.text);
    const box = el("textarea", { value: asText ? v.text : "", spellcheck: false, "aria-label": "Value of " + visible(name), readOnly: api.readOnly() });
    const shown = asText ? box : el("pre", {}, v.text !== undefined ? visibleLines(v.text) : hex(v.base64));
    const parts = [];
    if (!asText) parts.push(el("p", {}, v.text === undefined ? "This value is not text." : "This value has characters that are not seen, spelled \\u.... here.", " A text field would change it: replace it by a file."));
    let hidden = secret(space, name);
    const cover = el("p", { hidden: !hidden }, el("button", { type: "button", onclick: () => {
      cover.hidden = true;
      shown.hidden = false;
      if (asText) box.focus();
    } }, "Show the value"), " It is a secret.");
    shown.hidden = hidden;
    const save = el("button", { type: "button", className: "main", onclick: () => put(asText ? { value: box.value } : null) }, "Save");
    const upload = el("input", { type: "file", "aria-label": "A file to replace the value by" });
    const replace = el("button", { type: "button", onclick: async () => {
      if (!upload.files.length) said.replaceChildren(notice("Choose a file first."));
      else await base64Of(upload.files[0]).then((base64) => put({ base64 }), (e) => said.replaceChildren(notice(e.message)));
    } }, "Replace by the file");
    const remove = el("button", { type: "button", className: "danger", onclick: () => change([{ remove: name, space }], true) }, "Remove the key");

    async function put(what) {
      const parts = [{ put: name, space, ...what }];
      if (await change(parts, false)) await saved(parts);
    }
    // saved makes what was put what the reader has seen, unless somebody has written since.
    async function saved(parts) {
      let now;
      try {
        now = await api.value(uuid, space, name);
      } catch (e) {
        said.replaceChildren(notice("Saved. " + (e.status === 404 ? "Somebody has removed this key since." : e.message)));
        return;
      }
      if (!holds(now, parts[0])) {
        said.replaceChildren(theirs(now, "Saved. Then " + visible(now.by) + " wrote this key at " + time(now.changed) + ". It is now:", parts, false));
        return;
      }
      v = now;
      said.replaceChildren(el("p", {}, "Saved."));
    }
    // change does parts if nobody has changed the key since the reader saw it.
    async function change(parts, removes) {
      try {
        await api.txn(uuid, [{ key: name, space, version: v.version }], parts);
      } catch (e) {
        said.replaceChildren(e.status === 409 ? await conflict(parts, removes) : notice(e.message));
        return false;
      }
      if (removes) {
        open = null;
        panel.replaceChildren(el("p", { role: "status" }, visible(name) + " is removed."));
      }
      read();
      return true;
    }
    // conflict shows what somebody else has made of the key meanwhile.
    async function conflict(parts, removes) {
      let now;
      try {
        now = await api.value(uuid, space, name);
      } catch (e) {
        return notice(e.status === 404 ? "Somebody has removed this key meanwhile. Your value is still here." : e.message);
      }
      return theirs(now, "Nothing was changed: " + visible(now.by) + " wrote this key at " + time(now.changed) + ", after you had read it. It is now:", parts, removes);
    }
    // theirs shows what the key is now, and lets the reader choose.
    function theirs(now, text, parts, removes) {
      const value = secret(space, name) ? "(a secret)" : now.text === undefined ? hex(now.base64) : visibleLines(now.text);
      return el("div", { className: "notice", id: "conflict" },
        el("p", {}, text),
        el("pre", {}, value),
        el("button", { type: "button", onclick: () => field(space, name, now) }, "Take theirs"), " ",
        el("button", { type: "button", className: "danger", onclick: async () => {
          v = now;
          if (await change(parts, removes) && !removes) await saved(parts);
        } }, removes ? "Remove it all the same" : "Write mine over it"));
    }
    const tools = api.readOnly() ? [] : [
      el("p", { className: "tools" }, ...(asText ? [save] : []), remove),
      el("p", { className: "tools" }, upload, replace)];
    panel.replaceChildren(...head, ...parts, cover, shown, said, ...tools);
    if (asText && !hidden) box.focus();
    else panel.querySelector("h3").focus();
  }

  // create shows an empty key in the panel.
  function create() {
    open = null;
    const name = el("input", { id: "new-name", "aria-label": "Name of the key", maxLength: 255 });
    const space = el("select", { "aria-label": "Who may see it" },
      el("option", { value: "keys" }, "the guest and the host"), el("option", { value: "internal" }, "the host (internal)"));
    const box = el("textarea", { spellcheck: false, "aria-label": "Value" });
    const said = el("div", { role: "status" });
    panel.replaceChildren(el("h3", {}, "A new key"), el("p", { className: "tools" }, name, space), box, said,
      el("p", {}, el("button", { type: "button", className: "main", onclick: async () => {
        try {
          await api.txn(uuid, [{ key: name.value, space: space.value, absent: true }], [{ put: name.value, space: space.value, value: box.value }]);
          edit(space.value, name.value);
        } catch (e) {
          said.replaceChildren(notice(e.status === 409 ? "There is a key of this name already." : e.message));
        }
      } }, "Create")));
    name.focus();
  }

  let soon = 0;
  const again = () => (soon ||= setTimeout(() => { soon = 0; read(); }, 300));
  stop.push(host.on("event", (e) => !gone && e.detail.vm === uuid && again()));
  read().then(() => title.focus());
  api.attachLines(uuid).then((text) => lines.replaceChildren(el("h3", {}, "To attach it"), el("pre", {}, text)), () => {});
  return () => {
    clearTimeout(soon);
    stop.forEach((f) => f());
  };
}

const notice = (text) => el("div", { className: "notice", role: "alert" }, text);

// holds tells whether a value that was read is the one that was put, as text or base64.
function holds(v, put) {
  if (put.value !== undefined) return v.text === put.value;
  if (v.text === undefined) return v.base64 === put.base64;
  const raw = Uint8Array.from(atob(put.base64), (c) => c.charCodeAt(0));
  return v.text === new TextDecoder("utf-8", { ignoreBOM: true }).decode(raw);
}

// hex is the first bytes of a value that is no text.
function hex(base64) {
  const all = atob(base64);
  const first = [...all.slice(0, 512)].map((c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");
  return first + (all.length > 512 ? " ... (" + bytes(all.length) + ")" : "");
}

async function base64Of(file) {
  const url = await new Promise((done, fail) => {
    const r = new FileReader();
    r.onload = () => done(r.result);
    r.onerror = () => fail(r.error);
    r.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
}
