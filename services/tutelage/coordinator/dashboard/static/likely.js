// What student and teacher held most likely before a token: read a block of tokens at a time, shown as two tables.

const LOST = "the lists could not be read; load the page again";

/** The lists of a block, or a sentence why there are none. */
export async function readBlock(url, block) {
  try {
    const answer = await fetch(`${url}?block=${block}`);
    return answer.ok ? await answer.json() : `${LOST} (${answer.status})`;
  } catch {
    return LOST;
  }
}

/** Of the token that is `at` in the block: rows, or a sentence why there are none. */
export function rowsOf(block, who, at) {
  if (typeof block === "string") return block;
  if (block[who] === null) return `the ${who}'s list is not known: no such signal was asked`;
  const rows = block[who][at];
  if (rows === null) return "the teacher did not score this token";
  return rows.map(([id, logprob]) => ({ id, text: block.texts[id] ?? `id ${id}`, logprob: logprob ?? -Infinity }));
}

/** found: rows, a sentence, or null while they are being read; written: the id that stands in the text */
export function showTop(who, found, written) {
  const body = document.getElementById(`top-${who}`);
  const none = document.getElementById(`none-${who}`);
  const isList = Array.isArray(found);
  body.closest("table").hidden = !isList;
  none.hidden = isList;
  none.textContent = isList ? "" : (found ?? "…");
  body.replaceChildren(...(isList ? found.map((row) => line(row, row.id === written)) : []));
}

function line({ id, text, logprob }, isWritten) {
  const made = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  const shown = document.createElement("bdi");
  shown.textContent = text;
  head.append(shown);
  if (isWritten) {
    made.className = "written";
    const note = document.createElement("span");
    note.textContent = " written";
    head.append(note);
  }
  const probability = Math.exp(logprob);
  made.append(head, cell(Number.isFinite(logprob) ? logprob.toFixed(2).replace("-", "−") : "−∞"), cell(percent(probability)));
  const bar = document.createElement("meter");
  bar.value = probability;
  bar.setAttribute("aria-hidden", "true");
  made.lastChild.prepend(bar);
  return made;
}

function cell(content) {
  const made = document.createElement("td");
  made.textContent = content;
  return made;
}

function percent(probability) {
  return probability > 0 && probability < 0.001 ? "< 0.1 %" : `${(100 * probability).toFixed(1)} %`;
}
