// A chart read by keys: arrows go from point to point, + and - look closer and back again, 0 shows all.

const CLOSER = 0.5;

/** Do what the key does to a chart, if it does anything. */
export function press(plot, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key](plot);
}

const KEYS = {
  ArrowRight: (plot) => point(plot, (plot.cursor.idx ?? -1) + 1),
  ArrowLeft: (plot) => point(plot, (plot.cursor.idx ?? plot.data[0].length) - 1),
  Home: (plot) => point(plot, 0),
  End: (plot) => point(plot, plot.data[0].length - 1),
  "+": (plot) => look(plot, width(plot) * CLOSER),
  "-": (plot) => look(plot, width(plot) / CLOSER),
  0: (plot) => look(plot, Infinity),
};

function width({ scales: { x } }) {
  return x.max - x.min;
}

/** Go to a point, and bring it into sight. */
function point(plot, wanted) {
  const steps = plot.data[0];
  const at = Math.min(Math.max(wanted, 0), steps.length - 1);
  const { min, max } = plot.scales.x;
  if (steps[at] < min || steps[at] > max) show(plot, steps[at] - width(plot) / 2, steps[at] + width(plot) / 2);
  goTo(plot, steps[at]);
}

/** Put the mark on a step. */
export function goTo(plot, step) {
  plot.setCursor({ left: plot.valToPos(step, "x"), top: plot.over.clientHeight / 2 }, true, true);
}

/** Show so many steps around the point, or around the middle of what is shown. */
function look(plot, wanted) {
  const { idx } = plot.cursor;
  const { min, max } = plot.scales.x;
  const middle = idx === null || idx === undefined ? (min + max) / 2 : plot.data[0][idx];
  show(plot, middle - wanted / 2, middle + wanted / 2);
  if (idx !== null && idx !== undefined) point(plot, idx);
}

/** Never beyond what is there. */
function show(plot, from, to) {
  const [first, last] = [plot.data[0][0], plot.data[0].at(-1)];
  if (first === last) return;
  const span = Math.min(to - from, last - first);
  const min = Math.min(Math.max(from, first), last - span);
  plot.batch(() => plot.setScale("x", { min, max: min + span }));
}
