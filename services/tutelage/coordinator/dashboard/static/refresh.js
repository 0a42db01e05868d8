// The page is made by the server. To bring it up to date is to fetch it again and take over what changed, and no more.

const EVERY_MS = 4000;

/** Bring every part marked data-live up to date. Resolves to the page as it is now. */
export async function refresh() {
  const response = await fetch(location.href, { cache: "no-store" });
  if (!response.ok) throw new Error(`the coordinator answered ${response.status}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const shown of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(shown.id);
    if (next !== null) become(shown, next);
  }
  return fresh;
}

/** Look again every few seconds while somebody can see the page. after: is given each page as it is then */
export function keep(after) {
  const look = async () => {
    if (!document.hidden) {
      try {
        after(await refresh());
        tell("Live", "live");
      } catch {
        tell("No answer from the coordinator; trying again", "lost");
      }
    }
    setTimeout(look, EVERY_MS);
  };
  tell("Live", "live");
  setTimeout(look, EVERY_MS);
}

/** Make one element or text what the other is, and leave alone whatever in it is that already: what has the focus, was
 * opened, scrolled to or marked does not notice. */
function become(shown, next) {
  if (shown.isEqualNode(next)) return;
  if (shown.nodeName !== next.nodeName) shown.replaceWith(document.importNode(next, true));
  else if (shown.nodeType === Node.TEXT_NODE) shown.data = next.data;
  else {
    takeAttributes(shown, next);
    takeChildren(shown, [...shown.childNodes], [...next.childNodes]);
  }
}

function takeAttributes(shown, next) {
  for (const { name } of [...shown.attributes]) {
    if (name !== "open" && !next.hasAttribute(name)) shown.removeAttribute(name); // whether it is open, its reader says
  }
  for (const { name, value } of next.attributes) {
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
}

/** What is new is put between, what is gone is taken out, and the rest goes on as it was. */
function takeChildren(parent, old, fresh) {
  let at = 0;
  for (const [place, next] of fresh.entries()) {
    const here = old[at];
    const known = find(old, next, at);
    if (here === undefined || (known !== at && find(fresh, here, place) >= 0)) {
      parent.insertBefore(document.importNode(next, true), here ?? null);
    } else if (known >= 0) {
      for (const gone of old.slice(at, known)) gone.remove();
      at = known + 1;
    } else {
      become(here, next);
      at += 1;
    }
  }
  for (const gone of old.slice(at)) gone.remove();
}

/** Where an element like it stands, from a place on; texts between elements are too alike to be looked for. */
function find(nodes, wanted, from) {
  if (wanted.nodeType !== Node.ELEMENT_NODE) return -1;
  return nodes.findIndex((each, at) => at >= from && each.isEqualNode(wanted));
}

/** Say in the page's corner how fresh it is; announced to screen readers when it changes. */
export function tell(text, kind) {
  const place = document.getElementById("connection");
  if (place.textContent === text) return;
  place.textContent = text;
  place.className = `connection ${kind}`;
}
