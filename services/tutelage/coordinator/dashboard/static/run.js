// A run's page: follows its events and takes the page anew when something happened: at most once a second, and no more
// than a tenth of the time, so that a long run costs its server no more than a short one.

import { draw } from "./charts.js";
import { refresh, tell } from "./refresh.js";

const EVENTS = ["state", "progress", "metrics", "checkpoint", "rollout", "teacher", "log"];
const SETTLE_MS = 100; // a step tells of itself in several events
const PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 10_000;
const LONGEST_WAIT_MS = 30_000;

let source = null;
let waitMs = PAUSE_MS;
let newest = 0; // of the events that were heard of
let isAsked = false;
let isBusy = false;

function head() {
  return document.getElementById("head").dataset;
}

function numbers(page) {
  return JSON.parse(page.getElementById("series").textContent);
}

function isBehind() {
  return isAsked || newest > Number(head().lastEvent);
}

async function update() {
  if (isBusy || document.hidden || !isBehind()) return;
  isBusy = true;
  await pass(SETTLE_MS);
  isAsked = false;
  const begunMs = performance.now();
  try {
    const page = await refresh();
    draw(numbers(page));
    if (head().final === "true") end();
    else if (source?.readyState === EventSource.OPEN) tell("Live", "live");
  } catch {
    isAsked = true;
    tell("No answer from the coordinator; trying again", "lost");
  }
  await pass(Math.min(LONGEST_PAUSE_MS, Math.max(PAUSE_MS, 9 * (performance.now() - begunMs))));
  isBusy = false;
  update();
}

function pass(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function ask() {
  isAsked = true;
  update();
}

function hear(event) {
  newest = Math.max(newest, Number(event.lastEventId));
  update();
}

function end() {
  source?.close();
  source = null;
  tell("This run has ended", "");
}

function follow() {
  if (document.hidden || source !== null) return;
  const { run, lastEvent } = head();
  source = new EventSource(`/v1/runs/${encodeURIComponent(run)}/events?after=${lastEvent}`);
  for (const type of EVENTS) source.addEventListener(type, hear);
  source.onopen = () => {
    waitMs = PAUSE_MS;
    tell("Live", "live");
  };
  source.onerror = () => {
    if (source === null) return;
    tell("Connection lost; trying again", "lost");
    ask();
    if (source.readyState !== EventSource.CLOSED) return; // the browser goes on by itself, behind the last event
    source = null;
    setTimeout(() => head().final === "true" || follow(), waitMs);
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
  };
}

draw(numbers(document));
if (head().final === "true") end();
else follow();
// A browser has few connections to one host: a page that nobody sees gives its own up.
document.addEventListener("visibilitychange", () => {
  if (head().final === "true") return;
  if (document.hidden) {
    source?.close();
    source = null;
  } else {
    follow();
    ask();
  }
});
