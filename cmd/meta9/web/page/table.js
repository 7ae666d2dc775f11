// The table of VMs. It may have any number of rows; those in sight are elements, and are
// used again for others as it is scrolled.
import * as host from "./host.js";
import { bytes, el, time, visible } from "./dom.js";

const columns = [
  { id: "alias", name: "Alias", text: (o) => visible(o.alias) || "-" },
  { id: "state", name: "State", text: (o) => visible(o.state) },
  { id: "bytes", name: "Metadata", by: (o) => o.bytes },
  { id: "keys", name: "Keys", by: (o) => o.keys, number: true },
  { id: "connections", name: "Conns", by: (o) => o.connections, number: true, wide: true, title: "9P connections" },
  { id: "changed", name: "Last change", by: (o) => o.changed, text: (o) => time(o.changed), wide: true },
  { id: "uuid", name: "UUID", text: (o) => o.uuid, wide: true },
];

// What the reader chose stays while he looks at a VM and comes back.
const chosen = { filter: "", sort: "alias", down: false, current: "", top: 0 };

// show fills main with the table; what it gives takes it away.
export function show(main) {
  const filter = el("input", { type: "search", id: "filter", placeholder: "Filter: alias, UUID or state  ( / )", value: chosen.filter, "aria-label": "Filter VMs by alias, UUID or state" });
  const shown = el("span", { className: "count", role: "status" });
  const heads = columns.map((c) => el("div", { role: "columnheader", className: classOf(c) },
    el("button", { type: "button", title: c.title || "", onclick: () => sortBy(c) }, c.name)));
  const space = el("div", { className: "space" });
  const body = el("div", { className: "body", role: "rowgroup", tabIndex: 0, "aria-label": "VMs: arrows move, Enter opens" }, space);
  const grid = el("div", { className: "grid", role: "grid", "aria-label": "VMs" },
    el("div", { className: "line head", role: "row", "aria-rowindex": 1 }, ...heads), body);
  main.replaceChildren(el("div", { className: "tools" }, filter, shown), grid);

  const height = 2 * parseFloat(getComputedStyle(document.documentElement).fontSize);
  let list = [];
  const lines = []; // elements, used again

  function sortBy(c) {
    chosen.down = chosen.sort === c.id && !chosen.down;
    chosen.sort = c.id;
    arrange();
  }

  // arrange takes the rows that pass the filter, in their order.
  function arrange() {
    const words = chosen.filter.toLowerCase().split(/\s+/).filter(Boolean);
    list = [];
    for (const o of host.rows.values()) if (words.every((w) => o.text.includes(w))) list.push(o);
    const by = columns.find((c) => c.id === chosen.sort).by;
    const turn = chosen.down ? -1 : 1;
    list.sort(by
      ? (a, b) => turn * (by(a) - by(b)) || (a.uuid < b.uuid ? -1 : 1)
      : (a, b) => (a[chosen.sort] < b[chosen.sort] ? -turn : a[chosen.sort] > b[chosen.sort] ? turn : a.uuid < b.uuid ? -1 : 1));
    heads.forEach((h, i) => h.setAttribute("aria-sort", columns[i].id !== chosen.sort ? "none" : chosen.down ? "descending" : "ascending"));
    space.style.height = list.length * height + "px";
    grid.setAttribute("aria-rowcount", list.length + 1);
    const all = host.rows.size;
    shown.textContent = host.loaded ? (list.length === all ? all + " VMs" : list.length + " of " + all + " VMs")
      : all + " of " + host.count + " VMs read";
    draw();
  }

  let asked = false;
  function draw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      const first = Math.max(0, Math.floor(body.scrollTop / height) - 4);
      const last = Math.min(list.length, Math.ceil((body.scrollTop + body.clientHeight) / height) + 4);
      while (lines.length < last - first) {
        const line = newLine();
        lines.push(line);
        body.append(line);
      }
      lines.forEach((line, i) => {
        const at = first + i;
        line.hidden = at >= last;
        if (!line.hidden) fill(line, list[at], at);
      });
      body.setAttribute("aria-activedescendant", list.some((o) => o.uuid === chosen.current) ? "vm-" + chosen.current : "");
    });
  }

  function newLine() {
    const line = el("div", { className: "line", role: "row" }, ...columns.map((c) => {
      const cell = el("div", { role: "gridcell", className: classOf(c) });
      if (c.id === "bytes") cell.append(el("div", { className: "bar" }, el("i"), el("b")));
      return cell;
    }));
    line.onclick = () => (location.hash = "#vm/" + line.dataset.uuid);
    return line;
  }

  function fill(line, o, at) {
    line.dataset.uuid = o.uuid;
    line.id = "vm-" + o.uuid;
    line.style.transform = `translateY(${at * height}px)`;
    line.setAttribute("aria-rowindex", at + 2);
    line.classList.toggle("current", o.uuid === chosen.current);
    columns.forEach((c, i) => {
      const cell = line.children[i];
      if (c.id === "bytes") {
        const [part, text] = cell.firstChild.children;
        part.style.width = Math.min(100, (100 * o.bytes) / o.limit || 0) + "%";
        text.textContent = bytes(o.bytes);
        cell.title = `${bytes(o.bytes)} of ${bytes(o.limit)}`;
      } else {
        cell.textContent = c.text ? c.text(o) : o[c.id];
        if (c.id === "alias") cell.title = cell.textContent;
        if (c.id === "state") cell.className = "state-" + (/^[a-z]+$/.test(o.state) ? o.state : "other");
      }
    });
  }

  // move makes another row the current one, and brings it into sight.
  function move(to) {
    if (!list.length) return;
    const at = Math.max(0, Math.min(list.length - 1, to));
    chosen.current = list[at].uuid;
    if (at * height < body.scrollTop) body.scrollTop = at * height;
    if ((at + 1) * height > body.scrollTop + body.clientHeight) body.scrollTop = (at + 1) * height - body.clientHeight;
    draw();
  }

  body.onkeydown = (e) => {
    const at = list.findIndex((o) => o.uuid === chosen.current);
    const page = Math.max(1, Math.floor(body.clientHeight / height) - 1);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: list.length }[e.key];
    if (to !== undefined && !e.altKey && !e.ctrlKey) {
      e.preventDefault();
      move(to);
    }
    if (e.key === "Enter" && at >= 0) location.hash = "#vm/" + chosen.current;
  };
  body.onscroll = () => {
    chosen.top = body.scrollTop;
    draw();
  };
  filter.oninput = () => {
    chosen.filter = filter.value;
    body.scrollTop = 0;
    arrange();
  };
  filter.onkeydown = (e) => {
    if (e.key !== "ArrowDown" && e.key !== "Enter") return;
    e.preventDefault();
    body.focus();
    move(0);
  };
  const sized = new ResizeObserver(draw);
  sized.observe(body);
  // Who is connected is no event: what is in sight is read again now and then.
  const again = setInterval(() => {
    if (!document.hidden) host.refresh(lines.filter((l) => !l.hidden).map((l) => l.dataset.uuid));
  }, 5000);
  const forget = host.on("rows", arrange);
  arrange();
  body.scrollTop = chosen.top;
  body.focus({ preventScroll: true });
  return () => {
    forget();
    clearInterval(again);
    sized.disconnect();
  };
}

const classOf = (c) => (c.number ? "number" : "") + (c.wide ? " wide" : "");
