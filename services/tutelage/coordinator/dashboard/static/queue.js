// The queue: looked at again every few seconds; its dead letters are put back to work, or forgotten, by the API.

import { keep, refresh } from "./refresh.js";

const DONE = { replay: "was put back to work", discard: "was discarded" };
const ASKED = { replay: ["/replay", "POST"], discard: ["", "DELETE"] };

function offer() {
  for (const verbs of document.querySelectorAll(".verbs")) verbs.hidden = false;
}

function say(text) {
  const place = document.getElementById("done");
  place.textContent = text;
  place.hidden = false;
}

async function act({ run, job, verb }) {
  const [path, method] = ASKED[verb];
  const url = `/v1/runs/${encodeURIComponent(run)}/dead-letters/${encodeURIComponent(job)}${path}`;
  const answer = await fetch(url, { method });
  say(answer.ok ? `${job} ${DONE[verb]}.` : `${job}: ${(await answer.json()).detail}`);
  await refresh();
  offer();
}

document.getElementById("main").addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-verb]");
  if (button === null) return;
  if (button.dataset.verb === "discard" && !confirm(`Forget ${button.dataset.job}? A step that asks it again asks anew.`)) return;
  button.disabled = true;
  try {
    await act(button.dataset);
  } catch {
    say("No answer from the coordinator; try again.");
    button.disabled = false;
  }
});

offer();
keep(offer);
