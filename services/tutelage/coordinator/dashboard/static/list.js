// A list of runs or teachers: looked at again every few seconds while somebody can see it.

import { refresh, tell } from "./refresh.js";

const EVERY_MS = 4000;

async function look() {
  if (!document.hidden) {
    try {
      await refresh();
      tell("Live", "live");
    } catch {
      tell("No answer from the coordinator; trying again", "lost");
    }
  }
  setTimeout(look, EVERY_MS);
}

tell("Live", "live");
setTimeout(look, EVERY_MS);
