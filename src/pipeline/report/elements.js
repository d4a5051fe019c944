"use strict";
// Elements, and numbers and times as texts. Texts are always written as texts, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("p", { class: "muted" }, "text", child)`. Functions are listeners; null and false are left out. */
function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An element of a picture. */
function s(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A list of names and contents. Those without content are left out. */
function facts(entries) {
  const known = entries.filter(([, content]) => content !== null && content !== undefined && content !== "");
  return h("dl", {}, known.map(([name, content]) => h("div", {}, h("dt", {}, name), h("dd", {}, content))));
}

/** A choice among texts. */
function choice(name, values, chosen, onChange) {
  const options = values.map(([value, text]) => h("option", { value, selected: value === chosen }, text));
  return h("label", {}, name, h("select", { change: (event) => onChange(event.target.value) }, options));
}

/** A number as `pipeline metrics` shows it. What JSON does not have is a text already. */
function number(value) {
  if (typeof value !== "number") return value ?? "";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return value.toLocaleString("en-US");
  if (size < 1e-3 || size >= 1e5) return value.toExponential(3);
  return value.toFixed(Math.min(4, Math.max(0, 3 - Math.floor(Math.log10(size)))));
}

/** Seconds as the commands show them. */
function duration(seconds) {
  if (seconds < 0.0995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 0.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

/** Bytes as the commands show them: powers of 1000. */
function size(bytes) {
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (bytes < 999.5) return `${bytes.toFixed(unit !== "B" && bytes < 10 ? 1 : 0)} ${unit}`;
    bytes /= 1000;
  }
  return `${bytes.toFixed(1)} PB`;
}

/** Seconds since 1970 as the reader's date and time. */
function time(seconds) {
  const date = new Date(seconds * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const text = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
  return h("time", { datetime: date.toISOString(), title: date.toISOString() }, text);
}

/** Compares numbers as numbers, and texts with whole numbers in them by those; numbers are before texts. */
const COLLATOR = new Intl.Collator("en", { numeric: true });
function compare(one, other) {
  const asNumber = (value) => (typeof value === "string" && value.trim() !== "" ? Number(value) : typeof value === "number" ? value : NaN);
  const [first, second] = [asNumber(one), asNumber(other)];
  if (Number.isFinite(first) && Number.isFinite(second)) return first - second;
  if (Number.isFinite(first) !== Number.isFinite(second)) return Number.isFinite(first) ? -1 : 1;
  return COLLATOR.compare(String(one ?? ""), String(other ?? ""));
}

/**
 * A table that can be sorted, and searched where it is long. A column has `name`, `of(row)` (what is sorted), and optionally `show(row)`. More controls are beside the search.
 */
function dataTable(columns, rows, rowClass = () => null, controls = []) {
  const isNumber = columns.map((column) => rows.some((row) => typeof column.of(row) === "number"));
  const body = h("tbody");
  let shown = rows;
  let sorted = null;
  let down = false;
  const fill = () => {
    const list = [...shown];
    if (sorted !== null) {
      const of = columns[sorted].of;
      // What has no value is last in both directions.
      const has = (row) => (of(row) === undefined || of(row) === null ? 1 : 0);
      list.sort((one, other) => has(one) - has(other) || (down ? -1 : 1) * compare(of(one), of(other)));
    }
    body.replaceChildren(...list.map((row) => h("tr", { class: rowClass(row) }, columns.map((column, index) =>
      h("td", { class: isNumber[index] && "number" }, column.show ? column.show(row) : number(column.of(row)))))));
  };
  const heads = columns.map((column, index) => h("th", { scope: "col", class: isNumber[index] && "number" },
    h("button", { type: "button", click: () => {
      down = sorted === index ? !down : isNumber[index];
      sorted = index;
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[index].setAttribute("aria-sort", down ? "descending" : "ascending");
      fill();
    } }, column.name)));
  fill();
  const table = h("div", { class: "box-table", tabindex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, heads)), body));
  if (rows.length <= 15) return h("div", {}, controls.length > 0 && h("div", { class: "controls" }, controls), table);
  const search = h("input", { type: "search", placeholder: `Search ${rows.length} rows`, "aria-label": "Search", input: () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (row) => columns.map((column) => `${column.name}=${column.of(row) ?? ""}`).join(" ").toLowerCase();
    shown = rows.filter((row) => words.every((word) => text(row).includes(word)));
    fill();
  } });
  return h("div", {}, h("div", { class: "controls" }, search, controls), table);
}
