"""Whatever bytes come, each is answered with a problem or a reply, and the next good request is answered as before."""

from __future__ import annotations

import json
from typing import Any

import damaged
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tutelage.engines import FakeOptions
from tutelage.serving import PROBLEM_TYPE
from tutelage_client.wire import MEDIA_TYPE
from tutelage_client.wire.codes import PROBLEMS

JSON = "application/json"
GOOD = {"sequences": [{"token_ids": [1, 2, 3], "score_start": 1}]}
GROUP = {"prompt_ids": [1, 2], "completions": [{"token_ids": [3, 4], "candidate_ids": [[1], [2, 3]]}]}
SOUND: dict[str, dict[str, Any]] = {
    "/v1/score": {"sequences": [*GOOD["sequences"], GROUP], "signals": ["sampled", "top_k"], "top_k": 2},
    "/v1/generate": {"prompts": ["t1", [1, 2], [{"role": "user", "content": "t1"}]], "max_tokens": 4, "stop": ["t9"]},
    "/v1/reward": {
        "items": [{"prompt": "p", "completion": "a" * 34 + "b", "reference": "r"}],
        "reward": {"kind": "pattern", "pattern": "c", "timeout_s": 0.1},
    },
    "/v1/completions": {"prompt": [[1, 2], [3]], "max_tokens": 2, "logprobs": 1, "echo": True, "logit_bias": {}},
}
ENDLESS = SOUND["/v1/reward"] | {"reward": {"kind": "pattern", "pattern": "(a+)+$", "timeout_s": 0.1}}
ODD = st.sampled_from(
    [None, True, "", "\ud800", "\x00", -1, 0.5, 2**31, 10**400, float("nan"), float("inf"), 1e308, [], {}, [[]], [{}]]
)
VALUES = st.recursive(
    ODD | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "\ud800", "a"]), inner),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A sound value with some part of it replaced, taken away, or one added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from([*value, "\ud800"]))
        return value | {key: draw(changed(value.get(key)))}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(changed(value[at])), *value[at + draw(st.integers(0, 1)) :]]
    return draw(VALUES)


# Of these some never end on the completion above, some match, some are none.
PATTERNS = st.lists(st.sampled_from(["a", "b", "(a+)+", "a*", "(", ")", "|", "$", "\\", "{9}", "\ud800"]), max_size=6)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, str, bytes]:
    path = draw(st.sampled_from([*SOUND]))
    sound = SOUND[path]
    if path == "/v1/reward":
        sound = sound | {"reward": sound["reward"] | {"pattern": "".join(draw(PATTERNS))}}
    body = json.dumps(draw(st.just(sound) | changed(sound))).encode()
    return path, JSON, draw(st.sampled_from([body] * 8 + [body[:-1], b"\xff" + body, b"[" * 5000]))


SENT = texts() | st.tuples(st.just("/v1/score"), st.just(MEDIA_TYPE), damaged.binary)


@given(SENT, st.sampled_from([JSON, MEDIA_TYPE, ""]))
@example(("/v1/score", "text/plain", b"x"), JSON)
@example(("/v1/reward", JSON, json.dumps(ENDLESS).encode()), JSON)
@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_it_is_answered_and_the_teacher_goes_on(
    start_teacher: Any, sent: tuple[str, str, bytes], accept: str
) -> None:
    path, form, body = sent
    async with start_teacher(FakeOptions(max_length=64)) as teacher:
        answer = await teacher.http.post(path, content=body, headers={"content-type": form, "accept": accept})
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            told = answer.json()
            is_problem = answer.headers["content-type"] == PROBLEM_TYPE
            problem = told if is_problem else {"detail": told["error"]["message"], "code": told["error"]["code"]}
            assert problem["code"] in PROBLEMS
            assert problem["detail"]
            assert "\n" not in problem["detail"]
        after = await teacher.http.post("/v1/score", json=GOOD)
        assert after.status_code == 200, after.text
