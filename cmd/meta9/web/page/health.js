// How the daemon is: its health, its limits, and what it counts as small plots of rates.
import * as api from "./api.js";
import { bytes, el, visible } from "./dom.js";

const every = 2000; // ms
const points = 90;
const history = []; // what ctl said, the oldest first: { at, figures }

// Figures that are as of now; all other numbers count since the start.
const nows = new Set(["vms", "keys", "bytes", "memory_in_flight", "connections", "sessions", "sessions_parked", "mdata_connections",
  "journal_sessions", "journal_bytes", "commit_mean_us", "commit_p99_us", "qemus", "qemus_unresponsive", "libvirt_domains", "libvirt_vms"]);
// Those that say nothing as a plot: what does not change, limits, and what no unit has.
const hidden = /^(rev|uptime|pid|vm_sockets|descriptors_needed|upgrade_pause_ms)$|_limit$/;

export function show(main) {
  const facts = el("dl");
  const plots = el("div", { className: "plots" });
  main.replaceChildren(el("h2", { tabIndex: -1 }, "Health"), facts, el("h3", {}, "Figures"), plots);
  let timer = 0;
  let over = false;
  async function read() {
    try {
      const figures = await api.status();
      if (over) return;
      history.push({ at: performance.now(), figures });
      if (history.length > points + 1) history.shift();
      draw(figures);
    } catch { /* the head of the page says so, and the plots have a gap */ }
    if (!over) timer = setTimeout(read, every);
  }
  function draw(f) {
    const days = Math.floor(f.uptime / 86400);
    const rest = new Date(1000 * (f.uptime % 86400)).toISOString().slice(11, 19);
    facts.replaceChildren(...[["Health", f.health], ["Version", f.version], ["Up for", (days ? days + " d " : "") + rest], ["VMs", f.vms], ["Keys", f.keys], ["Metadata", bytes(f.bytes)]]
      .flatMap(([n, v]) => [el("dt", {}, n), el("dd", { className: n === "Health" && v !== "ok" ? "state-failed" : "" }, visible(v))]));
    plots.replaceChildren(...Object.keys(f).filter((n) => /^-?\d+$/.test(f[n]) && !hidden.test(n)).map((n) => plot(n)));
  }
  read();
  main.querySelector("h2").focus();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}

// plot is a figure over time: as it is, or what it grew by a second.
function plot(name) {
  const values = [];
  for (let i = nows.has(name) ? 0 : 1; i < history.length; i++) {
    const now = Number(history[i].figures[name]);
    if (nows.has(name)) values.push(now);
    else values.push(Math.max(0, (1000 * (now - Number(history[i - 1].figures[name]))) / (history[i].at - history[i - 1].at)));
  }
  const most = Math.max(1, ...values);
  const last = values.at(-1);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${points} 30`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", values.map((v, i) => `${points - values.length + i},${29 - (28 * v) / most}`).join(" "));
  svg.append(line);
  const text = last === undefined ? "" : /bytes|memory_in_flight/.test(name) ? bytes(last) : nows.has(name) ? String(last) : last.toFixed(last < 10 ? 1 : 0) + "/s";
  return el("figure", { className: "plot" }, svg, el("figcaption", {}, name.replaceAll("_", " "), el("b", {}, text)));
}
