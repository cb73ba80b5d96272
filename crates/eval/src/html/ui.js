"use strict";
// Helpers: elements, numbers, line charts. No library, no network.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

/** An element: attributes, listeners under on*, children. */
function h(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (key === "html") e.innerHTML = value; // fixed text of the program only, never of a result
    else e.setAttribute(key, value === true ? "" : value);
  }
  e.append(...children.flat(Infinity).filter((c) => c !== undefined && c !== null && c !== false));
  return e;
}
function svg(tag, attributes, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes || {})) e.setAttribute(key, value);
  e.append(...children.flat());
  return e;
}

const COLOURS = 12; // --c0 to --c11 of the style
const percent = (rate) => (100 * rate).toFixed(1) + " %";
const rateText = (r) => r.text;
const small = (...text) => h("small", { class: "variant" }, ...text);
/** A text whose part from `mark` on stands below, so that tables stay narrow. */
const twoLines = (text, mark) => { const cut = text.indexOf(mark); return [text.slice(0, cut), small(text.slice(cut))]; };
const rateCell = (r) => twoLines(r.text, " [");
const machineText = (m) => m ? `${m.processor || m.arch}, ${m.cores} cores` : "not recorded";
const secondsText = (s) => s <= 0 ? "-" : s < 0.1 ? s.toFixed(3) : s.toFixed(2);
const durationText = (s) => s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
const bytesText = (b) => b >= 2 ** 30 ? `${(b / 2 ** 30).toFixed(1)} GiB` : `${Math.round(b / 2 ** 20)} MiB`;
const countText = (n) => n >= 1e6 ? `${(n / 1e6).toFixed(2)} M` : n.toLocaleString("en");
const colour = (row) => row.reference ? "var(--reference)" : `var(--c${row.colour % COLOURS})`;

/** Round steps of an axis from a to b. */
function ticks(a, b, count) {
  const raw = (b - a) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const out = [];
  for (let v = Math.ceil(a / step - 1e-9) * step; v <= b + step * 1e-6; v += step) out.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  return out;
}
const tickText = (v) => v !== 0 && (Math.abs(v) < 0.001 || Math.abs(v) >= 1e5) ? v.toExponential(0) : String(+v.toPrecision(4));

/**
 * A line chart. series: [{points: [[x, y]], colour, name, band: [[x, low, high]], dashed}]; options: x, y (labels),
 * log (y axis), levels ([{y, name}]), cursor (x), height.
 */
function lineChart(series, options) {
  const W = options.width || Math.min(640, Math.max(340, innerWidth - 70)), H = options.height || 300, left = 56, right = 14, top = 12, bottom = 42;
  const all = series.flatMap((s) => s.points.concat((s.band || []).flatMap(([x, low, high]) => [[x, low], [x, high]])))
    .filter(([, y]) => Number.isFinite(y) && (!options.log || y > 0));
  if (!all.length) return h("p", { class: "muted" }, "Nothing to draw.");
  const f = options.log ? Math.log10 : (v) => v;
  const xs = all.map((p) => p[0]), ys = all.map((p) => f(p[1])).concat((options.levels || []).map((l) => f(l.y)));
  const min = (v) => v.reduce((a, b) => Math.min(a, b)), max = (v) => v.reduce((a, b) => Math.max(a, b));
  let [x0, x1, y0, y1] = [min(xs), max(xs), min(ys), max(ys)];
  if (!options.log) y0 = Math.min(0, y0);
  if (y1 === y0) y1 = y0 + 1;
  if (x1 === x0) x1 = x0 + 1;
  y1 += (y1 - y0) * 0.05;
  const X = (x) => left + (x - x0) / (x1 - x0) * (W - left - right);
  const Y = (y) => H - bottom - (f(y) - y0) / (y1 - y0) * (H - top - bottom);
  const out = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${options.y} over ${options.x}` });
  const decades = (m) => Array.from({ length: 40 }, (_, k) => m.map((v) => v * 10 ** (k - 20))).flat().filter((v) => f(v) >= y0 && f(v) <= y1);
  const yTicks = !options.log ? ticks(y0, y1, 5) : y1 - y0 > 2.5 ? decades([1]) : decades([1, 2, 5]);
  for (const t of yTicks) out.append(svg("line", { class: "grid", x1: left, x2: W - right, y1: Y(t), y2: Y(t) }), svg("text", { x: left - 8, y: Y(t) + 4, "text-anchor": "end" }, tickText(t)));
  for (const t of ticks(x0, x1, 6)) out.append(svg("text", { x: X(t), y: H - bottom + 18, "text-anchor": X(t) > W - right - 20 ? "end" : "middle" }, tickText(t)));
  out.append(svg("text", { x: (left + W - right) / 2, y: H - 6, "text-anchor": "middle" }, options.x));
  const path = (points) => {
    let d = "", pen = false;
    for (const [x, y] of points) {
      if (!Number.isFinite(y) || (options.log && y <= 0)) { pen = false; continue; }
      d += `${pen ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`;
      pen = true;
    }
    return d;
  };
  for (const level of options.levels || []) out.append(svg("line", { class: "rule", x1: left, x2: W - right, y1: Y(level.y), y2: Y(level.y) }), svg("text", { x: left + 6, y: Y(level.y) - 5 }, level.name));
  for (const s of series) {
    if (s.band && s.band.length) {
      const ring = s.band.map(([x, , high]) => [x, high]).concat(s.band.map(([x, low]) => [x, low]).reverse());
      out.append(svg("path", { class: "band", d: path(ring) + "Z", style: `fill: ${s.colour}` }));
    }
    const curve = svg("path", { class: "curve" + (s.dashed ? " dashed" : ""), d: path(s.points), style: `stroke: ${s.colour}` });
    if (s.name) curve.append(svg("title", {}, s.name));
    out.append(curve);
  }
  if (options.cursor !== undefined) out.append(svg("line", { class: "cursor", x1: X(options.cursor), x2: X(options.cursor), y1: top, y2: H - bottom }));
  return out;
}

/** Names of the series of a chart, each once: [name, colour, class of a mark that is no plain line]. */
function legend(entries) {
  return h("div", { class: "legend" }, entries.map(([name, c, mark]) => h("span", {}, h("i", { class: mark, style: `background: ${c}` }), name)));
}

/** A table; columns: [{name, cell(row), sort(row), tight}]. A click or Enter on a sortable head sorts. */
function makeTable(columns, rows, options = {}) {
  const body = h("tbody");
  let order = null;
  const fill = () => {
    const sorted = order ? [...rows].sort((a, b) => order.sign * compare(order.column.sort(a), order.column.sort(b))) : rows;
    body.replaceChildren(...sorted.map((row) => h("tr", { class: row.reference && "reference", "data-row": row.id }, columns.map((c) => h("td", { class: c.tight ? "tight" : c.wide && "row" }, c.cell(row))))));
  };
  const heads = columns.map((column) => {
    const th = h("th", { scope: "col" });
    if (!column.sort) { th.append(column.name); return th; }
    th.append(h("button", { type: "button", onclick: () => {
      order = { column, sign: order && order.column === column ? -order.sign : (typeof column.sort(rows[0] || {}) === "number" ? -1 : 1) };
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", order.sign > 0 ? "ascending" : "descending");
      fill();
    } }, column.name));
    return th;
  });
  fill();
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": options.name || "Table" }, h("table", {}, h("thead", {}, h("tr", {}, heads)), body));
}
const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
