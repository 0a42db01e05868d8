// What student and teacher held most likely before a token: read once a rollout, shown as two tables.

const LOST = "the lists could not be read; load the page again";

/** A promise of (who, at) => rows of { id, text, logprob }, or a sentence why there are none. */
export async function readTops(url) {
  try {
    const answer = await fetch(url);
    if (!answer.ok) return () => `${LOST} (${answer.status})`;
    const { inspection } = await answer.json();
    return (who, at) => rowsOf(inspection, who, at);
  } catch {
    return () => LOST;
  }
}

function rowsOf(inspection, who, at) {
  const ids = inspection[`${who}_topk_ids`];
  if (!ids) return `the ${who}'s list is not known: no such signal was asked`;
  if (who === "teacher" && !inspection.valid[at]) return "the teacher did not score this token";
  const logprob = inspection[`${who}_topk_logprob`][at];
  const rows = ids[at].map((id, j) => ({ id, text: inspection.texts[id] ?? "", logprob: logprob[j] ?? -Infinity }));
  return rows.filter(({ id }) => id >= 0);
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
  shown.textContent = visible(text) || `id ${id}`;
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

const SIGNS = { "\n": "↵", "\t": "⇥", "\r": "␍" };

/** As the server shows a token: signs for what has none of its own or would turn the text around it. */
function visible(text) {
  const signs = [...text].map((char) => SIGNS[char] ?? (isPlain(char) ? char : `⟨U+${hex(char)}⟩`)).join("");
  const shown = signs.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
  return shown.length > 60 ? `${shown.slice(0, 60)}… +${shown.length - 60}` : shown;
}

function isPlain(char) {
  return char === " " || !/[\p{C}\p{Z}]/u.test(char);
}

function hex(char) {
  return char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
}
