// The page is made by the server. To bring it up to date is to fetch it again and take over the parts that changed.

const EVERY_MS = 4000;

/** Replace every part marked data-live that differs. Resolves to the page as it is now. */
export async function refresh() {
  const response = await fetch(location.href, { cache: "no-store" });
  if (!response.ok) throw new Error(`the coordinator answered ${response.status}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const shown of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(shown.id);
    if (next === null || next.isEqualNode(shown) || isSelected(shown)) continue;
    replace(shown, document.importNode(next, true));
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

/** Somebody has marked text inside: it is left alone until they are done. */
function isSelected(part) {
  const selected = getSelection();
  return selected !== null && !selected.isCollapsed && selected.containsNode(part, true);
}

/** Focus, scrolling and what was opened stay as they were. */
function replace(old, part) {
  const focus = old.contains(document.activeElement) ? name(document.activeElement) : null;
  const scrolled = places(old).map(({ scrollTop, scrollLeft }) => [scrollTop, scrollLeft]);
  const opened = new Set([...old.querySelectorAll("details[open] > summary")].map((each) => each.textContent));
  for (const each of part.querySelectorAll("details > summary")) each.parentElement.open ||= opened.has(each.textContent);
  old.replaceWith(part);
  if (focus !== null) [part, ...part.querySelectorAll("*")].find((each) => name(each) === focus)?.focus({ preventScroll: true });
  for (const [at, place] of places(part).entries()) [place.scrollTop, place.scrollLeft] = scrolled[at] ?? [0, 0];
}

function name(element) {
  return element.getAttribute("href") ?? element.getAttribute("aria-label") ?? element.id;
}

function places(part) {
  return [part, ...part.querySelectorAll(".scroll")];
}

/** Say in the page's corner how fresh it is; announced to screen readers when it changes. */
export function tell(text, kind) {
  const place = document.getElementById("connection");
  if (place.textContent === text) return;
  place.textContent = text;
  place.className = `connection ${kind}`;
}
