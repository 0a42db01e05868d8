// The rollout inspector: one token is in focus, by pointer or keyboard, and its numbers stand in the dock.

import { readTops, showTop } from "./likely.js";

const said = document.getElementById("said");
const values = document.getElementById("values");
const worst = document.getElementById("worst");
const WHO = ["student", "teacher"];
const sides = [...document.querySelectorAll("[data-side]")].map(openSide);
let active = sides[0];

/** A listbox with its numbers; where a teacher's log-prob is null in a valid row it is -Infinity. */
function openSide(list) {
  const numbers = JSON.parse(document.getElementById(`numbers-${list.dataset.side}`).textContent);
  const tokens = [...list.querySelectorAll('[role="option"]')];
  const side = { list, numbers, tokens, places: new Map(tokens.map((token, at) => [token, at])) };
  side.focused = -1;
  side.walked = -1; // how far `w` has come in `order`
  side.order = worstFirst(side);
  side.tops = numbers.url === null ? Promise.resolve(() => "unknown: the step did not inspect it") : readTops(numbers.url);
  return side;
}

function teacherLogprob({ numbers }, at) {
  if (!numbers.teacher_logprob || !numbers.valid[at]) return null;
  return numbers.teacher_logprob[at] ?? -Infinity;
}

function gap(side, at) {
  const teacher = teacherLogprob(side, at);
  return teacher === null ? null : teacher - side.numbers.student_logprob[at];
}

/** Where a teacher scored: what it finds least likely beside the student; elsewhere what its writer found so. */
function badness(side) {
  const { numbers, tokens } = side;
  if (tokens.some((_, at) => gap(side, at) !== null)) return (at) => gap(side, at);
  const logprob = numbers.behaviour_logprob ?? numbers.student_logprob ?? null;
  return (at) => (logprob === null ? null : logprob[at]);
}

/** The tokens that are learned from, the worst first. */
function worstFirst(side) {
  const of = badness(side);
  const bad = side.tokens.map((_, at) => of(at));
  const ranked = [...bad.keys()].filter((at) => side.numbers.mask[at] && bad[at] !== null);
  return ranked.sort((a, b) => bad[a] - bad[b]);
}

function focus(side, at) {
  if (at < 0 || at >= side.tokens.length) return;
  for (const each of sides) blur(each);
  active = side;
  side.focused = at;
  const token = side.tokens[at];
  token.id = "focused";
  token.setAttribute("aria-selected", "true");
  side.list.setAttribute("aria-activedescendant", "focused");
  token.scrollIntoView({ block: "nearest" });
  describe(side, at);
}

function blur(side) {
  const token = side.tokens[side.focused];
  token?.removeAttribute("aria-selected");
  token?.removeAttribute("id");
  side.list.removeAttribute("aria-activedescendant");
}

function describe(side, at) {
  const { numbers, tokens, order } = side;
  const place = `Token ${at + 1} of ${tokens.length}${sides.length > 1 ? ` at step ${numbers.step}` : ""}`;
  const rank = order.indexOf(at);
  const ranked = rank < 0 ? "" : rank === 0 ? "; the worst here" : `; the worst but ${rank}`;
  said.textContent = `${place}: ${tokens[at].getAttribute("aria-label")}${ranked}`;
  values.replaceChildren(...facts(side, at));
  for (const who of WHO) showTop(who, null, numbers.ids[at]);
  side.tops.then((tops) => {
    if (active === side && side.focused === at) for (const who of WHO) showTop(who, tops(who, at), numbers.ids[at]);
  });
}

function facts(side, at) {
  const { numbers } = side;
  const teacher = teacherLogprob(side, at);
  const learned = numbers.mask[at] ? "yes" : "no: masked";
  const told = [
    ["Gap", signed(gap(side, at))],
    ["Student", likely(numbers.student_logprob?.[at] ?? null)],
    ["Teacher", likely(teacher)],
    ["Entropy of student", nats(numbers.student_entropy?.[at] ?? null)],
    ["Entropy of teacher", nats(numbers.teacher_entropy?.[at] ?? null)],
    ["Student as it wrote", likely(numbers.behaviour_logprob?.[at] ?? null)],
    ["May be learned from", learned],
    ["Added to the loss", added(numbers, at)],
    ["Id", String(numbers.ids[at])],
  ];
  return told.map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(text("dt", name), text("dd", value));
    return pair;
  });
}

function added({ contribution, learned_tokens: tokens }, at) {
  if (!contribution) return "unknown";
  return contribution[at] === null ? "nothing: not learned from" : `${nats(contribution[at])} of a sum over ${tokens} tokens`;
}

function text(tag, content) {
  const made = document.createElement(tag);
  made.textContent = content;
  return made;
}

function signed(value) {
  if (value === null) return "unknown";
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "+∞";
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)} nats`;
}

function nats(value) {
  return value === null ? "unknown" : `${value.toFixed(3).replace("-", "−")} nats`;
}

function likely(logprob) {
  if (logprob === null) return "unknown";
  if (logprob === -Infinity) return "−∞, impossible";
  return `${logprob.toFixed(3).replace("-", "−")}, probability ${Math.exp(logprob).toPrecision(3)}`;
}

/** The next of the worst first; after the last, or where another way was taken meanwhile, the first. */
function walk(side, by) {
  const { order } = side;
  if (order.length === 0) return;
  const isThere = order[side.walked] === side.focused;
  side.walked = isThere ? (side.walked + by + order.length) % order.length : 0;
  focus(side, order[side.walked]);
}

/** The token that stands above or below: the nearest in the next line. */
function vertical(side, direction) {
  const { tokens, focused } = side;
  const from = tokens[focused].getBoundingClientRect();
  let best = focused;
  let bestGap = Infinity;
  let line = null;
  for (let at = focused + direction; at >= 0 && at < tokens.length; at += direction) {
    const box = tokens[at].getBoundingClientRect();
    if (Math.abs(box.top - from.top) < 4) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) >= 4) break;
    const apart = Math.abs(box.left - from.left);
    if (apart < bestGap) [best, bestGap] = [at, apart];
  }
  focus(side, best);
}

const KEYS = {
  ArrowRight: (side) => focus(side, side.focused + 1),
  ArrowLeft: (side) => focus(side, side.focused - 1),
  ArrowDown: (side) => (side.focused < 0 ? focus(side, 0) : vertical(side, 1)),
  ArrowUp: (side) => (side.focused < 0 ? focus(side, 0) : vertical(side, -1)),
  Home: (side) => focus(side, 0),
  End: (side) => focus(side, side.tokens.length - 1),
  PageDown: (side) => focus(side, Math.min(side.focused + 100, side.tokens.length - 1)),
  PageUp: (side) => focus(side, Math.max(side.focused - 100, 0)),
  w: (side) => walk(side, 1),
  W: (side) => walk(side, -1),
};

for (const side of sides) {
  side.list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key](side);
  });
  side.list.addEventListener("click", (event) => {
    const at = side.places.get(event.target);
    if (at !== undefined) focus(side, at);
  });
}
if (sides.some((side) => side.order.length > 0)) {
  worst.parentElement.hidden = false;
  worst.addEventListener("click", () => {
    active.list.focus({ preventScroll: true });
    walk(active, 1);
  });
}
document.getElementById("dock").hidden = false;
performance.mark("inspector"); // from here on a key is answered
