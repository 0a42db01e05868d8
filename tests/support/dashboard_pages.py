"""A page of the dashboard as a browser would read it, and what must hold of each."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import httpx2

from tutelage.coordinator.dashboard import rendering

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"'\u202e" + "x" * 3000


class Page(HTMLParser):
    """What a browser would make of a page: tags with attributes, and the text of some."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.data.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.data).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


async def shown(http: httpx2.AsyncClient, path: str, status: int = 200) -> Page:
    answer = await http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == rendering.POLICY
    page = Page(answer.text)
    inert(page)
    return page


def inert(page: Page) -> None:
    """Nothing that the policy would stop is there to begin with."""
    for tag, attributes in page.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")], f"a handler on {tag}"
        if tag == "script":
            assert attributes.get("type") == "application/json" or str(attributes["src"]).startswith("/static/")
        for name in ("src", "href"):
            assert str(attributes.get(name) or "/").startswith(("/", "#")), "nothing from elsewhere"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def series(page: Page) -> dict[str, Any]:
    """The numbers that the page's script draws."""
    return json.loads(next(data for data in page.data if data.startswith('{"columns"')))
