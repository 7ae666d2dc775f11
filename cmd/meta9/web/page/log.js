// Events as lines, the newest first.
import * as host from "./host.js";
import { el, time, visible } from "./dom.js";

const longest = 500; // lines that are shown

// words is an event on one line.
function words(o) {
  const what = { "key-set": "set " + o.space + "/" + o.key, "key-removed": "removed " + o.space + "/" + o.key }[o.type] || o.type;
  const lost = o.type === "lost" ? ": events are missing here" : "";
  return visible([o.date && time(o.date).slice(11), host.rows.get(o.vm)?.alias || o.vm, what + lost, o.by && "by " + o.by].filter(Boolean).join("  "));
}

// list is a list of the events that pass, as they come. Its ends go to stop.
export function list(main, passes, stop, paused = () => false) {
  const lines = el("ul", { className: "log", tabIndex: 0, "aria-label": "Events, the newest first" });
  let waiting = host.newest.filter(passes).slice(-longest);
  let asked = false;
  const draw = () => {
    asked = false;
    if (paused()) return;
    const fresh = waiting.slice(-longest).reverse();
    waiting = [];
    lines.prepend(...fresh.map((o) => {
      const line = el("li", {}, words(o));
      line.title = visible(JSON.stringify(o));
      return line;
    }));
    while (lines.children.length > longest) lines.lastChild.remove();
  };
  const soon = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  };
  stop.push(host.on("event", (e) => {
    if (!passes(e.detail)) return;
    waiting.push(e.detail);
    if (waiting.length > 2 * longest) waiting = waiting.slice(-longest);
    soon();
  }));
  lines.draw = soon;
  soon();
  return lines;
}

// show fills main with the events of all VMs; what it gives takes them away.
export function show(main) {
  const stop = [];
  let held = false;
  let filter = "";
  const hold = el("button", { type: "button", "aria-pressed": "false", onclick: () => {
    held = !held;
    hold.setAttribute("aria-pressed", String(held));
    hold.textContent = held ? "Go on" : "Pause";
    lines.draw();
  } }, "Pause");
  const input = el("input", { type: "search", placeholder: "Filter: VM, key, type, author  ( / )", "aria-label": "Filter events", id: "filter" });
  const passes = (o) => !filter || (words(o) + " " + (o.vm || "")).toLowerCase().includes(filter);
  let lines;
  const fill = () => {
    stop.splice(0).forEach((f) => f());
    lines?.remove();
    lines = list(main, passes, stop, () => held);
    main.append(lines);
  };
  input.oninput = () => {
    filter = input.value.toLowerCase();
    fill();
  };
  main.replaceChildren(el("div", { className: "tools" }, input, hold));
  fill();
  input.focus();
  return () => stop.forEach((f) => f());
}
