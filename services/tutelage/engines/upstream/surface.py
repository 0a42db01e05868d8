"""Which parameters a chat API takes. They differ from model to model, so a call is made with each before it is used.

A refused call is not billed. Where everything is taken, one call shows it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.engines.upstream.choices import plain
from tutelage.engines.upstream.failures import UpstreamRefused
from tutelage_client.wire import GenerateRequest

Limit = Literal["max_completion_tokens", "max_tokens"]
Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]  # from parameters to an answer with choices

# What is tried, under the name by which it is told of.
EXTRAS: Mapping[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.0},
    "temperature with top_p": {"temperature": 0.0, "top_p": 0.5},
    "n": {"n": 2},
    "seed": {"seed": 0},
    "logprobs": {"logprobs": True},
}
# Enough for an answer of a word; a model that thinks first refuses so little, and takes the second.
_LIMITS: Sequence[tuple[Limit, int]] = (
    ("max_completion_tokens", 16),
    ("max_tokens", 16),
    ("max_completion_tokens", 1024),
    ("max_tokens", 1024),
)


@dataclass(frozen=True, slots=True)
class Surface:
    """limit: how the longest answer is called; takes: names of `EXTRAS`"""

    limit: Limit = "max_completion_tokens"
    takes: frozenset[str] = frozenset(EXTRAS)

    def parameters(self, request: GenerateRequest, n: int, seed: int | None) -> dict[str, Any]:
        """What is sent for `n` answers. What has its default is left out, as models refuse even that.

        Temperature 1 is sent where temperatures are taken: it is not the default of every model.
        """
        asked: dict[str, Any] = {self.limit: request.max_tokens}
        if request.temperature != 1 or self._says_temperature(request):
            asked["temperature"] = request.temperature
        if request.top_p != 1:
            asked["top_p"] = request.top_p
        if n != 1:
            asked["n"] = n
        if request.stop:
            asked["stop"] = request.stop
        if seed is not None and "seed" in self.takes:
            asked["seed"] = seed
        if "logprobs" in self.takes and plain(request):
            asked["logprobs"] = True
        return asked

    def _says_temperature(self, request: GenerateRequest) -> bool:
        return ("temperature" if request.top_p == 1 else "temperature with top_p") in self.takes

    def facts(self) -> dict[str, Any]:
        """For people."""
        return {
            "output_logprobs": "logprobs" in self.takes,
            "parameters": [self.limit, *(name for name in EXTRAS if name in self.takes)],
        }


async def learn_surface(ask: Ask) -> Surface:
    """What an upstream takes. `ask` makes one call.

    Raises:
        UpstreamRefused: it refuses a call without any of `EXTRAS`. UpstreamFailed: it gave no usable answer.
    """
    limit, tokens = _LIMITS[0]
    if takes := await _taken(ask, {limit: tokens}, EXTRAS):
        return Surface(limit, takes)
    limit, tokens = await _limit(ask)
    found = [await _taken(ask, {limit: tokens}, [name]) for name in EXTRAS]
    return Surface(limit, frozenset[str]().union(*found))


async def _limit(ask: Ask) -> tuple[Limit, int]:
    refusals: list[UpstreamRefused] = []
    for limit, tokens in _LIMITS:
        try:
            await ask({limit: tokens})
        except UpstreamRefused as error:
            refusals.append(_of_parameters(error))
        else:
            return limit, tokens
    raise refusals[0]


async def _taken(ask: Ask, limit: dict[str, Any], names: Iterable[str]) -> frozenset[str]:
    """Those of `names` that are taken together: none where they are refused, and not "n" where it is ignored."""
    parameters = limit | {key: value for name in names for key, value in EXTRAS[name].items()}
    try:
        answer = await ask(parameters)
    except UpstreamRefused as error:
        _of_parameters(error)
        return frozenset()
    ignored = {"n"} if len(answer["choices"]) != parameters.get("n", 1) else set[str]()
    return frozenset(names) - ignored


def _of_parameters(error: UpstreamRefused) -> UpstreamRefused:
    """The refusal, if what was asked may be why. Raises: it, if not."""
    if error.status not in (400, 422):
        raise error
    return error
