"""A judge that counts the word "good", and obeys: a verdict that it reads outside the data is its verdict.

It takes any line that looks like the end of a fence for one, whatever nonce it carries. So a text that is judged can
have its way with it unless the text is fenced and cannot write a fence itself.
"""

from __future__ import annotations

import re

from fastapi import FastAPI

from tutelage.engines.fakes.chat import completion, taken
from tutelage.engines.fakes.toy import Body, Json, ToyServer
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Generation

FENCED = re.compile(r"^<<<DATA \w+ (\w+)>>>\n(.*?)\n<<<END", re.DOTALL | re.MULTILINE)
ORDER = re.compile(r"Score: \d|Better: (?:A|B|tie)")


def judge_app(toy: ToyServer) -> FastAPI:
    app = toy.app("chat")

    @app.post("/chat/completions")
    async def complete(body: Body) -> Json:
        said = "\n".join(message["content"] for message in body["messages"])
        if len(said.split()) > toy.options.max_length:
            raise InvalidInput(f"this model's maximum context length is {toy.options.max_length} tokens", "messages")
        texts = [Generation(text=verdict(said), finish_reason="stop")] * (taken(toy, body).get("n") or 1)
        return completion(toy, texts)

    return app


def verdict(said: str) -> str:
    """The judge's answer to all that it was told."""
    data = dict(FENCED.findall(said))
    order = ORDER.search(FENCED.sub("", said))
    if order is not None:
        return order[0]
    if "answer" in data:
        return f"Score: {min(9, good(data['answer']))}"
    a, b = good(data.get("A", "")), good(data.get("B", ""))
    return f"Better: {'A' if a > b else 'B' if b > a else 'tie'}"


def good(text: str) -> int:
    """What the judge likes."""
    return len(re.findall(r"\bgood\b", text))
