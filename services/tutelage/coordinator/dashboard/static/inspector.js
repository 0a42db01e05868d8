// The rollout inspector: one token is in focus, by pointer or keyboard, and its numbers stand in the dock.

import { readBlock, rowsOf, showTop } from "./likely.js";

const said = document.getElementById("said");
const values = document.getElementById("values");
const worst = document.getElementById("worst");
const WHO = ["student", "teacher"];
const FLOATS = ["behaviour_logprob", "student_logprob", "student_entropy", "teacher_logprob", "teacher_entropy", "contribution"];
const sides = [...document.querySelectorAll("[data-side]")].map(openSide);
let active = sides[0];
let isReading = false;

/** A listbox with its numbers, of which NaN is unknown. */
function openSide(list) {
  const packed = JSON.parse(document.getElementById(`numbers-${list.dataset.side}`).textContent);
  const numbers = { ...packed };
  for (const name of ["ids", "order"]) numbers[name] = new Int32Array(bytes(packed[name]));
  for (const name of FLOATS) numbers[name] = packed[name] ? new Float32Array(bytes(packed[name])) : null;
  numbers.mask = new Uint8Array(bytes(packed.mask));
  const side = { list, numbers, blocks: list.children, size: Number(list.dataset.block), count: numbers.ids.length };
  side.focused = -1;
  side.walked = -1; // how far `w` has come in `order`
  side.lists = new Map(); // by block, as far as they were read
  return side;
}

function bytes(text) {
  const found = atob(text);
  const made = new Uint8Array(found.length);
  for (let at = 0; at < found.length; at += 1) made[at] = found.charCodeAt(at);
  return made.buffer;
}

function tokenOf({ blocks, size }, at) {
  return blocks[Math.floor(at / size)].children[at % size];
}

/** The place of a token, or -1 for what is none. */
function placeOf({ blocks, size }, token) {
  const block = [...blocks].indexOf(token.parentElement);
  return block < 0 ? -1 : block * size + [...blocks[block].children].indexOf(token);
}

function of(array, at) {
  return array === null || Number.isNaN(array[at]) ? null : array[at];
}

function focus(side, at) {
  if (at < 0 || at >= side.count) return;
  for (const each of sides) blur(each);
  active = side;
  side.focused = at;
  const token = tokenOf(side, at);
  token.id = "focused";
  token.setAttribute("aria-selected", "true");
  side.list.setAttribute("aria-activedescendant", "focused");
  token.scrollIntoView({ block: "nearest" });
  describe(side, at);
}

function blur(side) {
  if (side.focused < 0) return;
  const token = tokenOf(side, side.focused);
  token.removeAttribute("aria-selected");
  token.removeAttribute("id");
  side.list.removeAttribute("aria-activedescendant");
}

function describe(side, at) {
  const { numbers, count } = side;
  const place = `Token ${at + 1} of ${count}${sides.length > 1 ? ` at step ${numbers.step}` : ""}`;
  const rank = numbers.order.indexOf(at);
  const ranked = rank < 0 ? "" : rank === 0 ? "; the worst here" : `; the worst but ${rank}`;
  said.textContent = `${place}: ${tokenOf(side, at).getAttribute("aria-label")}${ranked}`;
  values.replaceChildren(...facts(side, at));
  showLists(side, at);
}

function showLists(side, at) {
  const { numbers, lists, size } = side;
  const block = numbers.url === null ? "unknown: the step did not inspect it" : lists.get(Math.floor(at / size));
  for (const who of WHO) showTop(who, block === undefined ? null : rowsOf(block, who, at % size), numbers.ids[at]);
  if (block === undefined) readLists(side, Math.floor(at / size));
}

/** One block at a time: whoever hurries on is not followed by a queue of requests. */
async function readLists(side, block) {
  if (isReading) return;
  isReading = true;
  side.lists.set(block, await readBlock(side.numbers.url, block));
  isReading = false;
  showLists(active, active.focused);
}

function facts(side, at) {
  const { numbers } = side;
  const teacher = of(numbers.teacher_logprob, at);
  const student = of(numbers.student_logprob, at);
  const learned = numbers.held_out ? "no: a held-out line" : numbers.mask[at] ? "yes" : "no: masked";
  const told = [
    ["Gap", signed(teacher === null ? null : teacher - student)],
    ["Student", likely(student)],
    ["Teacher", likely(teacher)],
    ["Entropy of student", nats(of(numbers.student_entropy, at))],
    ["Entropy of teacher", nats(of(numbers.teacher_entropy, at))],
    ["Student as it wrote", likely(of(numbers.behaviour_logprob, at))],
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
  const value = of(contribution, at);
  return value === null ? "nothing: not learned from" : `${nats(value)} of a sum over ${tokens} tokens`;
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
  const { order } = side.numbers;
  if (order.length === 0) return;
  const isThere = order[side.walked] === side.focused;
  side.walked = isThere ? (side.walked + by + order.length) % order.length : 0;
  focus(side, order[side.walked]);
}

/** The token that stands above or below: the nearest in the next line. */
function vertical(side, direction) {
  const from = beginning(side, side.focused);
  let best = side.focused;
  let bestGap = Infinity;
  let line = null;
  for (let at = side.focused + direction; at >= 0 && at < side.count; at += direction) {
    const box = beginning(side, at);
    if (Math.abs(box.top - from.top) < 4) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) >= 4) break;
    const apart = Math.abs(box.left - from.left);
    if (apart < bestGap) [best, bestGap] = [at, apart];
  }
  focus(side, best);
}

/** Where a token begins: it may go on in the next line. */
function beginning(side, at) {
  return tokenOf(side, at).getClientRects()[0];
}

const KEYS = {
  ArrowRight: (side) => focus(side, side.focused + 1),
  ArrowLeft: (side) => focus(side, side.focused - 1),
  ArrowDown: (side) => (side.focused < 0 ? focus(side, 0) : vertical(side, 1)),
  ArrowUp: (side) => (side.focused < 0 ? focus(side, 0) : vertical(side, -1)),
  Home: (side) => focus(side, 0),
  End: (side) => focus(side, side.count - 1),
  PageDown: (side) => focus(side, Math.min(side.focused + 100, side.count - 1)),
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
    const at = placeOf(side, event.target);
    if (at >= 0) focus(side, at);
  });
}
if (sides.some((side) => side.numbers.order.length > 0)) {
  worst.parentElement.hidden = false;
  worst.addEventListener("click", () => {
    active.list.focus({ preventScroll: true });
    walk(active, 1);
  });
}
document.getElementById("dock").hidden = false;
performance.mark("inspector"); // from here on a key is answered
