// The charts of a run, drawn by uPlot from the columns that the page carries. What each shows is in its data attributes.

import { goTo, press } from "./keys.js";
import uPlot from "./vendor/uPlot.esm.js";

const HEIGHT = 170;
const WHOLE = Array.from({ length: 8 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat(); // steps have no halves
const drawn = new Map(); // by the key of the chart: { plot, series }
const dark = matchMedia("(prefers-color-scheme: dark)");
let newest = null;

/** Draw or bring up to date every chart of the page. series: steps, columns by name, marks; where a point is the mean of
 * several steps also lows and highs by name. */
export function draw(series) {
  newest = series;
  for (const place of document.querySelectorAll("[data-chart]")) show(place, series);
}

dark.addEventListener("change", () => {
  for (const { plot } of drawn.values()) plot.destroy();
  drawn.clear();
  draw(newest);
});

document.addEventListener("keydown", (event) => {
  const entry = drawn.get(event.target.dataset?.chart);
  if (entry) press(entry.plot, event);
});

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    drawn.get(target.dataset.chart)?.plot.setSize({ width: target.clientWidth, height: HEIGHT });
  }
});

function show(place, series) {
  const lines = JSON.parse(place.dataset.lines).map(([column, label, tone, right]) => ({ column, label, tone, right }));
  const data = place.dataset.kind === "stack" ? stacked(lines, series) : plain(lines, series);
  place.hidden = !data.slice(1).some((values) => values.some((value) => value !== null));
  place.nextElementSibling.hidden = place.hidden; // its table
  if (place.hidden) return;
  const key = place.dataset.chart;
  const known = drawn.get(key);
  if (known && known.plot.data.length === data.length) {
    known.series = series;
    known.lines = lines;
    renew(place, known.plot, data);
    return;
  }
  known?.plot.destroy(); // its points are means of several steps now, with shades that it did not have
  const entry = { series, lines };
  entry.plot = new uPlot(options(place, lines, entry), data, place);
  drawn.set(key, entry);
  sizes.observe(place);
}

/** Whoever looks closer keeps their window, and who reads by keys their step. */
function renew(place, plot, data) {
  const { min, max } = plot.scales.x;
  const before = plot.data[0];
  const step = place === document.activeElement ? before[plot.cursor.idx] : undefined;
  const isClose = min > before[0] || max < before.at(-1);
  plot.batch(() => {
    plot.setData(data, !isClose);
    if (isClose) plot.setScale("x", { min, max });
  });
  if (step !== undefined) goTo(plot, step);
}

/** Rows in which no line has a value are left out, so that a line goes on over steps that were not evaluated.
 * Behind the lines come the bounds of those that have any, the lower and the upper one of each. */
function plain(lines, { steps, columns, lows, highs }) {
  const kept = steps.map((_, at) => at).filter((at) => lines.some(({ column }) => columns[column][at] !== null));
  const bounds = bounded(lines, lows).flatMap(({ column }) => [lows[column], highs[column]]);
  return [steps, ...lines.map(({ column }) => columns[column]), ...bounds].map((values) => kept.map((at) => values[at]));
}

function bounded(lines, lows) {
  return lines.filter(({ column }) => Object.hasOwn(lows, column));
}

/** The topmost first, each with those below it added: later bars are drawn over the earlier ones. */
function stacked(lines, { steps: all, columns }) {
  const [steps, ...parts] = plain(lines, { steps: all, columns, lows: {}, highs: {} });
  const heights = parts.map((_, top) => steps.map((_, at) => sum(parts.slice(0, top + 1).map((part) => part[at]))));
  return [steps, ...heights.reverse()];
}

function sum(values) {
  return values.reduce((total, value) => total + (value ?? 0), 0);
}

function options(place, lines, entry) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const isStack = place.dataset.kind === "stack";
  const shown = isStack ? [...lines].reverse() : lines;
  const band = lines.flatMap(({ tone }, at) => (tone === "band" ? [at + 1] : []));
  const outer = isStack ? [] : bounded(lines, entry.series.lows);
  const axis = { stroke: colour("quiet"), font: "11px system-ui", ticks: { show: false }, grid: { stroke: colour("grid"), width: 1 } };
  const figures = (_, ticks) => ticks.map((tick) => tick.toLocaleString("en", { maximumSignificantDigits: 6 }).replaceAll(",", "\u202f"));
  const right = { ...axis, scale: "right", side: 1, size: 44, grid: { show: false }, values: (_, ticks) => ticks.map((t) => `${+(100 * t).toFixed(1)}%`) };
  return {
    width: place.clientWidth,
    height: HEIGHT,
    padding: [8, lines.some((line) => line.right) ? 0 : 14, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "steps" }, drag: { x: true, y: false, setScale: true }, points: { size: 6 } },
    scales: { x: { time: false }, y: { range: (_, low, high) => extent(low, high, isStack) }, right: { range: [0, 1] } },
    axes: [{ ...axis, size: 26, space: 60, incrs: WHOLE, values: figures }, { ...axis, size: 46, space: 32, values: figures }, ...(lines.some((line) => line.right) ? [right] : [])],
    series: [{}, ...shown.map((line) => style(line, colour, isStack)), ...outer.flatMap(({ right }) => [unseen(right), unseen(right)])],
    bands: [
      ...(band.length === 2 ? [{ series: [band[1], band[0]], fill: colour("band") }] : []),
      ...outer.map(({ tone }, at) => ({ series: [lines.length + 2 * at + 2, lines.length + 2 * at + 1], fill: `${colour(tone)}30` })),
    ],
    hooks: { draw: [(plot) => mark(plot, entry.series.marks, colour)], setCursor: [(plot) => read(plot, place, entry)] },
  };
}

function extent(low, high, isStack) {
  if (low === null) return [0, 1];
  const from = isStack || (low >= 0 && low < 0.6 * high) ? 0 : low;
  const room = 0.06 * (high - from || Math.abs(high) || 1);
  return [from === 0 ? 0 : from - room, high + room];
}

function style({ tone, right }, colour, isStack) {
  const scale = right ? "right" : "y";
  if (isStack) return { fill: colour(tone), width: 0, stroke: colour(tone), paths: uPlot.paths.bars({ size: [0.9, 12] }), points: { show: false } };
  if (tone === "band") return unseen(right);
  const dash = { teacher: [6, 3], second: [2, 3] }[tone];
  return { scale, stroke: colour(tone), width: 1.6, dash, spanGaps: true, points: { size: 4 } };
}

/** An edge of a shade. */
function unseen(right) {
  return { scale: right ? "right" : "y", stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
}

const MARKS = { start: ["good", []], pause: ["second", [2, 3]], lost: ["bad", []], teacher: ["warn", [5, 3]] };

/** Checkpoints are short ticks at the bottom, for there are many; everything else is a line over the full height. */
function mark(plot, marks, colour) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  for (const { step, kind } of marks) {
    const x = Math.round(plot.valToPos(step, "x", true)) + 0.5;
    if (x < bbox.left || x > bbox.left + bbox.width + 1) continue;
    const [tone, dash] = MARKS[kind] ?? ["second", []];
    ctx.strokeStyle = colour(tone);
    ctx.setLineDash(dash.map((length) => length * devicePixelRatio));
    ctx.beginPath();
    ctx.moveTo(x, kind === "checkpoint" ? bbox.top + bbox.height - 6 * devicePixelRatio : bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

/** The legend shows the step under the pointer with its values, and the newest values again when it leaves. */
function read(plot, place, { series, lines }) {
  const at = plot.cursor.idx;
  const step = at === null || at === undefined ? null : plot.data[0][at];
  const row = step === null ? -1 : series.steps.indexOf(step);
  const where = place.closest("figure").querySelector(".at");
  if (where !== null) {
    where.hidden = row < 0;
    where.querySelector("output").textContent = step ?? "";
  }
  for (const { column } of lines) {
    const output = place.closest("figure").querySelector(`output[data-line="${CSS.escape(column)}"]`);
    if (output === null) continue;
    output.dataset.newest ??= output.textContent;
    const value = row < 0 ? null : series.columns[column][row];
    output.textContent = row < 0 ? output.dataset.newest : value === null ? "–" : String(+value.toPrecision(4)).replaceAll("-", "−");
  }
}
