// The rollout inspector: one token is in focus, by pointer or keyboard, and its numbers are said.

const list = document.getElementById("tokens");
const said = document.getElementById("said");
const worst = document.getElementById("worst");
const tokens = [...list.querySelectorAll('[role="option"]')];
const places = new Map(tokens.map((token, at) => [token, at]));
const { logprob } = JSON.parse(document.getElementById("numbers").textContent);
// The least likely first, of those that are learned from.
const unlikely = logprob === null ? [] : [...logprob.keys()].filter(isLearned).sort((a, b) => logprob[a] - logprob[b]);
let focused = -1;
let walked = -1; // how far `w` has come in `unlikely`

function isLearned(at) {
  return !tokens[at].classList.contains("masked");
}

function focus(at) {
  if (at < 0 || at >= tokens.length) return;
  const before = tokens[focused];
  before?.removeAttribute("aria-selected");
  before?.removeAttribute("id");
  focused = at;
  const token = tokens[at];
  token.id = "focused";
  token.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", "focused");
  token.scrollIntoView({ block: "nearest" });
  said.textContent = describe(token, at);
}

function describe(token, at) {
  const parts = [`Token ${at} of ${tokens.length}: id ${token.textContent}`];
  if (logprob !== null) {
    const rank = unlikely.indexOf(at) + 1;
    parts.push(`log-prob ${logprob[at].toFixed(3)}, probability ${Math.exp(logprob[at]).toPrecision(3)}`);
    if (rank > 0) parts.push(rank === 1 ? "the least likely here" : `the least likely but ${rank - 1}`);
  }
  parts.push(isLearned(at) ? "learned from" : "not learned from");
  return `${parts.join(" · ")}.`;
}

/** The next one from the least likely on; after the last, or where another way was taken meanwhile, the first. */
function nextUnlikely() {
  walked = unlikely[walked] === focused ? (walked + 1) % unlikely.length : 0;
  focus(unlikely[walked]);
}

/** The token that stands above or below: the nearest in the next line. */
function vertical(direction) {
  const from = tokens[focused].getBoundingClientRect();
  let best = focused;
  let bestGap = Infinity;
  let line = null;
  for (let at = focused + direction; at >= 0 && at < tokens.length; at += direction) {
    const box = tokens[at].getBoundingClientRect();
    if (Math.abs(box.top - from.top) < 2) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) >= 2) break;
    const gap = Math.abs(box.left - from.left);
    if (gap < bestGap) [best, bestGap] = [at, gap];
  }
  focus(best);
}

const KEYS = {
  ArrowRight: () => focus(focused + 1),
  ArrowLeft: () => focus(focused - 1),
  ArrowDown: () => (focused < 0 ? focus(0) : vertical(1)),
  ArrowUp: () => (focused < 0 ? focus(0) : vertical(-1)),
  Home: () => focus(0),
  End: () => focus(tokens.length - 1),
  PageDown: () => focus(Math.min(focused + 100, tokens.length - 1)),
  PageUp: () => focus(Math.max(focused - 100, 0)),
};
if (unlikely.length > 0) KEYS.w = nextUnlikely;

list.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});
list.addEventListener("click", (event) => {
  const at = places.get(event.target);
  if (at !== undefined) focus(at);
});
if (worst !== null && unlikely.length > 0) {
  worst.hidden = false;
  worst.addEventListener("click", () => {
    list.focus({ preventScroll: true });
    nextUnlikely();
  });
}
