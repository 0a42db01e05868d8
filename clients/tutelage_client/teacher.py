"""A teacher over HTTP: scores as arrays, its head, its text and its rewards."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from tutelage_client.client import ServiceClient
from tutelage_client.errors import BadScores
from tutelage_client.http import RetryPolicy
from tutelage_client.wire import (
    MEDIA_TYPE,
    RUN_HEADER,
    GenerateReply,
    GenerateRequest,
    RewardReply,
    RewardRequest,
    ScoreReply,
    ScoreRequest,
    Spending,
    TeacherInfo,
    decode_reply,
    encode_request,
)


class TeacherClient(ServiceClient):
    """The teacher at `url`. A score, a reward and a head may be asked again, so a short outage is bridged.

    run_id: the run that asks, and pays too
    """

    timeout_s = 600.0  # a large batch waits for its turn and then for the model

    def __init__(
        self,
        url: str,
        key: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        retry: RetryPolicy | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(url, key, transport, retry)
        self._payer = {} if run_id is None else {RUN_HEADER: run_id}

    async def info(self) -> TeacherInfo:
        """Name, capabilities, provenance and the result of the start-up probe."""
        return await self._http.request_json("GET", "/v1/teacher", TeacherInfo)

    async def usage(self) -> Spending:
        """What the own key has spent and may spend."""
        return await self._http.request_json("GET", "/v1/usage", Spending)

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """Scores of the given tokens, as bytes in both directions.

        Raises:
            ProblemResponse: `capability_missing`, `invalid_input`, `overloaded`, `bad_scores`, `engine_failed`,
                `rate_limited`, `budget_spent`.
            BadScores: the reply is no score reply. ServiceUnreachable: there was none.
        """
        headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE} | self._payer
        body = encode_request(request)
        answer = await self._http.send("POST", "/v1/score", body, headers=headers, repeatable=True)
        return decode_reply(answer.content)

    async def head(self) -> dict[str, NDArray[Any]]:
        """`weight` [v, h] and where the model has them `bias` [v], `scale` [1], `softcap` [1], float32.

        logits = softcap * tanh(scale * (hidden @ weight.T + bias) / softcap), without softcap the inner term alone.
        """
        answer = await self._http.send("GET", "/v1/head", headers={"Accept": MEDIA_TYPE})
        try:
            tensors = load(answer.content)
        except SafetensorError as error:
            raise BadScores(f"the teacher's head is not safetensors: {error}") from error
        if "weight" not in tensors or not all(np.isfinite(array).all() for array in tensors.values()):
            raise BadScores("the teacher's head has no weight or holds numbers that are not finite")
        return tensors

    async def generate(self, request: GenerateRequest) -> GenerateReply:
        """The teacher's own text. Only a request with a seed is repeated, as the same text comes again."""
        repeatable = request.seed is not None or request.temperature == 0
        return await self._http.request_json(
            "POST", "/v1/generate", GenerateReply, request, repeatable=repeatable, headers=self._payer
        )

    async def reward(self, request: RewardRequest) -> RewardReply:
        """A reward for each item; one that is not valid has no value."""
        return await self._http.request_json(
            "POST", "/v1/reward", RewardReply, request, repeatable=True, headers=self._payer
        )
