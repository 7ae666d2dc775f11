// Elements of the page. Whatever comes from a VM becomes text, never markup.

// el makes an element: properties, attributes (with a dash, or role), on-handlers, then
// children, which are elements or text.
export function el(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, v] of Object.entries(props)) {
    if (v === undefined || v === null) continue;
    if (name.includes("-") || name === "role" || name === "for") e.setAttribute(name, v);
    else e[name] = v;
  }
  e.append(...children.filter((c) => c !== undefined && c !== null));
  return e;
}

// Control characters (C0, DEL, C1), and marks that turn the order of the text around them.
const unseen = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const spelled = (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0");

// visible is a name or a value on one line, as text that hides nothing.
export const visible = (s) => String(s ?? "").replace(unseen, spelled);

// visibleLines is a value as text that hides nothing but its ends of lines and its tabs.
export const visibleLines = (s) => s.replace(unseen, (c) => (c === "\n" || c === "\t" ? c : spelled(c)));

// editable tells whether a text field gives the value back as it was.
export const editable = (s) => visibleLines(s) === s;

export function bytes(n) {
  n = Number(n);
  if (n < 1024) return n + " B";
  for (const unit of ["KiB", "MiB", "GiB", "TiB"]) {
    n /= 1024;
    if (n < 1024 || unit === "TiB") return n.toFixed(n < 10 ? 1 : 0) + " " + unit;
  }
}

// time is a moment of the host, in the reader's own time.
export function time(t) {
  const d = new Date(t);
  if (Number.isNaN(d.getTime())) return "";
  const two = (n) => String(n).padStart(2, "0");
  return d.getFullYear() + "-" + two(d.getMonth() + 1) + "-" + two(d.getDate()) + " " +
    two(d.getHours()) + ":" + two(d.getMinutes()) + ":" + two(d.getSeconds());
}

// trouble shows what is wrong at the head of the page; without a text, nothing is.
export function trouble(text) {
  const box = document.getElementById("trouble");
  box.hidden = !text;
  box.textContent = text || "";
}
