// The page: opens with the token of its address, then shows a view for what follows the #.
import * as api from "./api.js";
import * as events from "./log.js";
import * as health from "./health.js";
import * as host from "./host.js";
import * as table from "./table.js";
import * as vm from "./vm.js";
import { el, trouble, visible } from "./dom.js";

const main = document.getElementById("main");
let leave = () => {};

function go() {
  const [view, uuid] = location.hash.slice(1).split("/");
  leave();
  for (const a of document.querySelectorAll("nav a")) {
    if (a.hash === "#" + (view || "vms") || (view === "vm" && a.hash === "#vms")) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  if (view === "vm" && uuid) leave = vm.show(main, uuid);
  else if (view === "events") leave = events.show(main);
  else if (view === "health") leave = health.show(main);
  else leave = table.show(main);
}

document.addEventListener("keydown", (e) => {
  const writes = /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName);
  if (e.key === "/" && !writes) {
    const filter = document.getElementById("filter");
    if (filter) {
      e.preventDefault();
      filter.focus();
    }
  }
  if (e.key === "Escape" && location.hash.startsWith("#vm/") && e.target.tagName !== "TEXTAREA") location.hash = "#vms";
});

async function begin() {
  const token = /^#open\/([A-Z2-7]+)$/.exec(location.hash)?.[1];
  if (token) {
    history.replaceState(null, "", "/"); // it works once, and is nobody's to see
    await api.open(token);
  }
  if (!api.isOpen()) throw new Error("This page is not open: use the address that the terminal of 'meta9 web' shows.");
  window.addEventListener("hashchange", go);
  go();
  host.follow();
  say();
}

// say shows at the head which daemon this is.
async function say() {
  const box = document.getElementById("host");
  try {
    const s = await api.status();
    box.textContent = `${visible(s.version)}, ${s.health === "ok" ? "healthy" : "not healthy: " + visible(s.health)}${api.readOnly() ? ", read-only" : ""}`;
    box.className = s.health === "ok" ? "" : "state-failed";
  } catch (e) {
    if (e.status === 401) return;
    box.textContent = "";
  }
  setTimeout(say, 10000);
}

begin().catch((e) => {
  main.replaceChildren(el("p", {}, "Nothing is shown."));
  trouble(e.message);
});
