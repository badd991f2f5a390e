"use strict";
// Filters, tables that can be sorted, and line charts in SVG. Texts are only ever set as text.

const data = JSON.parse(document.getElementById("data").textContent);
const SIZE = { width: 560, height: 330, left: 62, right: 12, top: 10, bottom: 42 };
const state = { off: { algorithm: new Set(), partition: new Set(), dataset: new Set() },
                hidden: new Set(data.hidden), x: "round", metric: data.metrics[0].name };

const byId = (id) => document.getElementById(id);

function svg(name, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (parent) parent.appendChild(node);
  return node;
}

function text(parent, content, attributes) {
  svg("text", attributes, parent).textContent = content;
}

// ---- filters ------------------------------------------------------------------------------------

function isShown(of) {
  return of.algorithms.every((name) => !state.off.algorithm.has(name)) &&
    (of.partition === null || !state.off.partition.has(of.partition)) &&
    (of.dataset === null || !state.off.dataset.has(of.dataset));
}

function filterRows() {
  for (const node of document.querySelectorAll("[data-of]")) {
    node.hidden = !isShown(JSON.parse(node.dataset.of));
  }
  for (const table of document.querySelectorAll("table[data-name]")) {
    const rows = [...table.tBodies[0].rows];
    const shown = rows.filter((row) => !row.hidden).length;
    byId("count-" + table.dataset.name).textContent =
      shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
  }
}

for (const box of document.querySelectorAll("#filters input[data-kind]")) {
  box.addEventListener("change", () => {
    const off = state.off[box.dataset.kind];
    if (box.checked) off.delete(box.value); else off.add(box.value);
    update();
  });
}

// ---- tables -------------------------------------------------------------------------------------

function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => {
    const [x, y] = [Number(key(a)), Number(key(b))];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return direction * (x - y);
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    return direction * key(a).localeCompare(key(b));
  };
  for (const row of [...body.rows].sort(compare)) body.appendChild(row);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    sortBy(head.closest("table"), head.cellIndex, rising ? 1 : -1);
  });
}

// ---- charts -------------------------------------------------------------------------------------

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-9) + 1e-12; i++) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

function logTicks(low, high) {
  const found = [];
  const factors = high / low > 1e3 ? [1] : high / low > 100 ? [1, 3] : [1, 2, 5];
  for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) {
    for (const factor of factors) {
      const value = Number((factor * 10 ** p).toPrecision(3));
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found;
}

function scaleOf(low, high, from, to, isLog) {
  const place = isLog ? Math.log : (v) => v;
  const [a, b] = [place(low), place(high)];
  return (value) => from + (b === a ? 0.5 : (place(value) - a) / (b - a)) * (to - from);
}

function pointsOf(series) {
  const values = series.metrics[state.metric];
  if (!values) return [];
  const xs = state.x === "round" ? values.round : values[state.x];
  return xs.map((x, i) => ({ x, y: values.mean[i], std: values.std[i], round: values.round[i], series }))
    .filter((p) => p.x !== null && p.y !== null && (state.x === "round" || p.x > 0));
}

function short(value) {
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3)
    ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function chart(setting, all) {
  const figure = document.createElement("figure");
  if (setting) figure.appendChild(document.createElement("figcaption")).textContent = setting;
  const root = svg("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, width: SIZE.width,
                            height: SIZE.height, role: "img" }, null);
  figure.appendChild(root);
  const lines = all.map((series) => ({ series, points: pointsOf(series) })).filter((l) => l.points.length);
  const points = lines.flatMap((line) => line.points);
  if (!points.length) {
    text(root, "nothing to show", { x: SIZE.width / 2, y: SIZE.height / 2, "text-anchor": "middle" });
    return figure;
  }
  const xs = points.map((p) => p.x);
  const ys = points.flatMap((p) => [p.y - p.std, p.y + p.std]);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const pad = 0.04 * (Math.max(...ys) - Math.min(...ys) || 1);
  const [y0, y1] = [Math.min(...ys) - pad, Math.max(...ys) + pad];
  const isLog = state.x !== "round" && lines.length > 1 && x1 / x0 > 10;
  const toX = scaleOf(x0, x1, SIZE.left, SIZE.width - SIZE.right, isLog);
  const toY = scaleOf(y0, y1, SIZE.height - SIZE.bottom, SIZE.top, false);
  const even = ticks(x0, x1, 6).filter((x) => state.x !== "round" || Number.isInteger(x));
  axes(root, isLog ? logTicks(x0, x1) : even, ticks(y0, y1, 5), toX, toY);
  for (const line of lines) draw(root, line, toX, toY);
  hover(root, points, toX, toY);
  return figure;
}

function axes(root, xTicks, yTicks, toX, toY) {
  const [bottom, right] = [SIZE.height - SIZE.bottom, SIZE.width - SIZE.right];
  for (const y of yTicks) {
    svg("line", { x1: SIZE.left, x2: right, y1: toY(y), y2: toY(y), stroke: "#e2e2e2" }, root);
    text(root, short(y), { x: SIZE.left - 6, y: toY(y) + 4, "text-anchor": "end" });
  }
  for (const x of xTicks) {
    svg("line", { x1: toX(x), x2: toX(x), y1: bottom, y2: bottom + 4, stroke: "#404040" }, root);
    text(root, short(x), { x: toX(x), y: bottom + 16, "text-anchor": "middle" });
  }
  svg("path", { d: `M${SIZE.left} ${SIZE.top}V${bottom}H${right}`, fill: "none", stroke: "#404040" }, root);
  text(root, data.xs.find((x) => x.name === state.x).label,
       { x: (SIZE.left + right) / 2, y: SIZE.height - 6, "text-anchor": "middle" });
  const middle = (SIZE.top + bottom) / 2;
  text(root, data.metrics.find((m) => m.name === state.metric).label,
       { x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` });
}

function draw(root, { series, points }, toX, toY) {
  const path = (ends) => ends.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L");
  if (points.some((p) => p.std > 0)) {
    const upper = points.map((p) => [toX(p.x), toY(p.y + p.std)]);
    const lower = points.map((p) => [toX(p.x), toY(p.y - p.std)]).reverse();
    svg("path", { d: `M${path([...upper, ...lower])}Z`, fill: series.colour, opacity: 0.15 }, root);
  }
  svg("path", { d: `M${path(points.map((p) => [toX(p.x), toY(p.y)]))}`, fill: "none", class: "series",
                "data-label": series.label, stroke: series.colour, "stroke-width": 2,
                "stroke-dasharray": series.dash }, root);
  if (points.length === 1) {
    svg("circle", { cx: toX(points[0].x), cy: toY(points[0].y), r: 4, fill: series.colour }, root);
  }
}

function hover(root, points, toX, toY) {
  const ring = svg("circle", { r: 5, fill: "none", stroke: "#000", "stroke-width": 1.5,
                               visibility: "hidden" }, root);
  const tip = byId("tip");
  root.addEventListener("mousemove", (event) => {
    const box = root.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) * SIZE.width / box.width,
                    (event.clientY - box.top) * SIZE.height / box.height];
    const far = (p) => (toX(p.x) - x) ** 2 + (toY(p.y) - y) ** 2;
    const nearest = points.reduce((best, p) => (far(p) < far(best) ? p : best));
    ring.setAttribute("cx", toX(nearest.x));
    ring.setAttribute("cy", toY(nearest.y));
    ring.setAttribute("visibility", "visible");
    const spread = nearest.series.seeds > 1 ? ` \u00b1 ${short(nearest.std)} (${nearest.series.seeds} seeds)` : "";
    const at = state.x === "round" ? "" : `${data.xs.find((a) => a.name === state.x).label}: ${short(nearest.x)}\n`;
    tip.textContent = `${nearest.series.label}\nround ${nearest.round}\n${at}${short(nearest.y)}${spread}`;
    tip.hidden = false;
    tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8)}px`;
  });
  root.addEventListener("mouseleave", () => {
    tip.hidden = true;
    ring.setAttribute("visibility", "hidden");
  });
}

function legend(shown) {
  const place = byId("legend");
  place.replaceChildren();
  const seen = new Map(shown.map((series) => [series.label, series]));
  for (const [label, series] of seen) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(!state.hidden.has(label)));
    const sample = svg("svg", { width: 34, height: 8 }, null);
    svg("line", { x1: 0, x2: 34, y1: 4, y2: 4, stroke: series.colour, "stroke-width": 2.5,
                  "stroke-dasharray": series.dash }, sample);
    button.append(sample, label);
    button.addEventListener("click", () => {
      if (!state.hidden.delete(label)) state.hidden.add(label);
      update();
    });
    place.appendChild(button);
  }
}

function update() {
  filterRows();
  const shown = data.series.filter(isShown);
  legend(shown);
  const visible = shown.filter((series) => !state.hidden.has(series.label));
  const settings = [...new Set(visible.map((series) => series.setting))];
  byId("charts").replaceChildren(
    ...settings.map((s) => chart(s, visible.filter((series) => series.setting === s))));
}

for (const [id, key] of [["choose-x", "x"], ["choose-metric", "metric"]]) {
  byId(id).addEventListener("change", (event) => { state[key] = event.target.value; update(); });
}
update();
document.documentElement.dataset.ready = "true";
