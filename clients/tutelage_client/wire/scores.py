"""`TokenScores`: what a teacher says about a stretch of tokens. The alignment is defined here, once.

For a token sequence x[0..n), row r of a block with `start` speaks of token x[start + r] and of nothing else:
its log-probability given x[0..start + r). Engines bring their own off-by-one; it ends inside their adapter.
A row that was not scored has `valid` False and NaN in every array. It is never 0.0, which would be probability one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tutelage_client.errors import BadScores
from tutelage_client.wire.arrays import (
    FlagRows,
    Flags,
    FloatRows,
    Floats,
    IdRows,
    repeat_in_a_row,
    to_bool,
    to_float32,
    to_int32,
)
from tutelage_client.wire.message import Message

# Log-softmax in float32 may exceed zero by rounding; anything above this is not a log-probability.
LOGPROB_SLACK = 1e-4
# Sixteen bits an entry may move the sum of a row's probabilities by less than this.
SUM_SLACK = 0.02
# Entries that are looked at together, so that what is computed on the way stays in the processor's cache.
_TILE = 65_536

PER_ROW = ("sampled_logprob", "topk_rest_mass", "candidate_upper_bound", "entropy")
PER_ENTRY = ("topk_logprob", "candidate_logprob", "hidden")
LOGPROBS = ("sampled_logprob", "topk_logprob", "candidate_logprob", "candidate_upper_bound")
_DTYPES: dict[str, np.dtype[Any]] = {
    "valid": np.dtype(np.bool_),
    "candidate_valid": np.dtype(np.bool_),
    "topk_ids": np.dtype(np.int32),
    **dict.fromkeys((*PER_ROW, *PER_ENTRY), np.dtype(np.float32)),
}
_WITHOUT_ARRAYS = dict.fromkeys(_DTYPES.keys() - {"valid"})
_READERS: dict[np.dtype[Any], Callable[[Any], NDArray[Any]]] = {
    np.dtype(np.bool_): to_bool,
    np.dtype(np.int32): to_int32,
    np.dtype(np.float32): to_float32,
}


def read_column(name: str, numbers: NDArray[Any]) -> NDArray[Any]:
    """An array of score blocks in its type, whatever it was written as. Raises: ValueError: it cannot be that array."""
    if name not in _DTYPES:
        raise ValueError(f"{name} is no array of a score block")
    return _READERS[_DTYPES[name]](numbers)


class TokenScores(Message):
    """One score block; every array has one row per scored token (R rows), null where it was not asked for.

    In JSON a null inside an array is -inf where `valid` is true, and no score where it is false.
    """

    start: int = Field(description="position of the first scored token, at least 1")
    valid: Flags = Field(description="[R] false where the row was not scored")
    sampled_logprob: Floats | None = Field(default=None, description="[R] log q(x[start+r] | x[:start+r]), nats")
    topk_ids: IdRows | None = Field(default=None, description="[R, k] the teacher's most probable tokens, descending")
    topk_logprob: FloatRows | None = Field(default=None, description="[R, k] their log-probabilities")
    topk_rest_mass: Floats | None = Field(default=None, description="[R] probability outside the top k")
    candidate_logprob: FloatRows | None = Field(default=None, description="[R, c] of the ids that the caller chose")
    candidate_valid: FlagRows | None = Field(default=None, description="[R, c] false where a candidate has no score")
    candidate_upper_bound: Floats | None = Field(
        default=None, description="[R] what bounds the row's uncovered candidates, NaN where all are covered"
    )
    entropy: Floats | None = Field(default=None, description="[R] of the full vocabulary, nats")
    hidden: FloatRows | None = Field(default=None, description="[R, h] last hidden state after the final norm")

    @classmethod
    def unchecked(cls, start: int, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """A block of arrays whose numbers the types of the wire can hold. Whoever hands it on has yet to `check` it.

        Raises: KeyError: `valid` is missing, or there is one that no block has.
        """
        typed = {name: array.astype(_DTYPES[name], copy=False) for name, array in arrays.items()}
        whole = _WITHOUT_ARRAYS | typed  # pydantic looks up each field that is not given
        return cls.model_construct({"start", *typed}, start=start, valid=whole.pop("valid"), **whole)

    @model_validator(mode="before")
    @classmethod
    def _read_nulls(cls, data: Any) -> Any:
        """JSON null is -inf in a valid place and NaN in one that is not."""
        if not isinstance(data, dict):
            return data
        listed = [name for name in (*PER_ROW, *PER_ENTRY) if isinstance(data.get(name), list)]
        if not listed:
            return data
        valid = np.asarray(data.get("valid", ()), dtype=bool)
        read = dict(data)
        for name in listed:
            scored = data.get("candidate_valid") if name == "candidate_logprob" else None
            read[name] = _nulls_to_numbers(read[name], valid if scored is None else np.asarray(scored, dtype=bool))
        return read

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.check()
        return self

    def check(self) -> None:
        """Refuse arrays that do not fit together or do not hold what they are called.

        Validation calls this; call it of a block that somebody else may have made without.

        Raises:
            ValueError: what is wrong.
        """
        if self.start < 1:
            raise ValueError(
                f"start is {self.start}; the first token of a sequence has no score, so start is at least 1"
            )
        arrays = self.arrays()
        self._check_shapes(arrays)
        self._check_values(arrays)

    @property
    def rows(self) -> int:
        return len(self.valid)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that this block carries, by field name."""
        return {name: value for name, value in vars(self).items() if name != "start" and value is not None}

    def _check_shapes(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, array in arrays.items():
            if array.dtype != _DTYPES[name]:
                raise ValueError(f"{name} is {array.dtype}, expected {_DTYPES[name]}")
            wanted = 1 if name in PER_ROW or name == "valid" else 2
            if array.ndim != wanted or len(array) != self.rows:
                shape = list(array.shape)
                raise BadScores(f"{name} has shape {shape}, expected {self.rows} rows and {wanted} axes", "length")
        for one, other in (("topk_ids", "topk_logprob"), ("candidate_valid", "candidate_logprob")):
            a, b = getattr(self, one), getattr(self, other)
            if (a is None) != (b is None) or (a is not None and a.shape != b.shape):
                raise ValueError(f"{one} and {other} must come together and agree in shape")
        if (self.topk_ids is None) != (self.topk_rest_mass is None):
            raise ValueError("topk_ids and topk_rest_mass must come together")
        if self.candidate_upper_bound is not None and self.candidate_valid is None:
            raise ValueError("candidate_upper_bound is of candidates, and there are none")

    def _check_values(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, array in arrays.items():
            if name in PER_ROW or name in PER_ENTRY:
                scored = self.candidate_valid if name == "candidate_logprob" else self.valid
                assert scored is not None
                self._check_array(name, array, scored)
        if self.topk_ids is not None and self.topk_logprob is not None:
            _check_top_k(_where(self.topk_ids, self.valid), _where(self.topk_logprob, self.valid))
        if self.candidate_logprob is not None and self.candidate_valid is not None:
            whole = self.candidate_valid.all()
            logprob = (
                self.candidate_logprob if whole else np.where(self.candidate_valid, self.candidate_logprob, -np.inf)
            )
            _check_sum("candidate_logprob", logprob)

    def _check_array(self, name: str, array: NDArray[Any], scored: NDArray[np.bool_]) -> None:
        whole = scored.all()
        values = array if whole else array[scored]
        if name == "candidate_upper_bound":
            values = values[~np.isnan(values)]  # only rows with an uncovered candidate have a bound
        most = values.max(initial=-np.inf)  # NaN where one is in them
        if np.isnan(most):
            raise BadScores(f"{name} is NaN in a row that is marked valid", "nan")
        if name in LOGPROBS and most > LOGPROB_SLACK:
            raise BadScores(f"{name} holds {most:.4g}; a log-probability is at most 0", "positive")
        if name == "topk_rest_mass" and values.size and not (values.min() >= -1e-3 and most <= 1 + 1e-3):
            raise ValueError("topk_rest_mass must lie between 0 and 1")
        if name == "entropy" and values.size and not (values.min() >= -1e-3 and np.isfinite(values).all()):
            raise ValueError("entropy must be finite and at least 0")
        if name == "hidden" and not np.isfinite(values).all():
            raise ValueError("hidden must be finite")
        if not whole and not np.isnan(array[~scored]).all():
            raise ValueError(f"{name} has a number in a row that is not valid; such a row is NaN")

    def require(self, *, start: int, rows: int, top_k: int | None = None, candidates: int | None = None) -> None:
        """Refuse a block that does not answer the question that was asked.

        Raises:
            BadScores: another start, another number of rows, fewer top-k or candidate columns than asked.
        """
        if self.start != start or self.rows != rows:
            raise BadScores(
                f"the teacher scored {self.rows} tokens from position {self.start}, asked were {rows} from {start}",
                "length",
            )
        for name, array, width in (
            ("top_k", self.topk_ids, top_k),
            ("candidates", self.candidate_logprob, candidates),
        ):
            if width is not None and (array is None or array.shape[1] != width):
                got = "none" if array is None else str(array.shape[1])
                raise BadScores(f"the teacher returned {got} {name} columns, asked were {width}", "length")


def _where(array: NDArray[Any], scored: NDArray[np.bool_]) -> NDArray[Any]:
    """The scored part, without a copy where that is all of it."""
    return array if scored.all() else array[scored]


def _nulls_to_numbers(value: list[Any], scored: NDArray[np.bool_]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is infinity
        array = np.asarray(value, dtype=np.float32)  # None becomes NaN
    mask = scored.reshape(scored.shape + (1,) * (array.ndim - scored.ndim)) if scored.ndim <= array.ndim else scored
    return np.where(np.isnan(array) & mask, np.float32(-np.inf), array)


def _check_top_k(ids: NDArray[np.int32], logprob: NDArray[np.float32]) -> None:
    if ids.size == 0:
        return
    rows = max(1, _TILE // ids.shape[1])
    for begin in range(0, len(ids), rows):
        _check_some(ids[begin : begin + rows], logprob[begin : begin + rows])


def _check_some(ids: NDArray[np.int32], logprob: NDArray[np.float32]) -> None:
    k = ids.shape[1]
    flat = logprob.ravel()
    rises = _any_in_a_row(flat[1:] > flat[:-1], k)
    if rises and _any_in_a_row(flat[1:] > flat[:-1] + LOGPROB_SLACK, k):  # no difference: both may be -inf
        raise ValueError("topk_logprob must descend")
    _check_sum("topk_logprob", logprob)
    if ids.min() < 0:
        raise ValueError("topk_ids holds a negative id in a valid row")
    if repeat_in_a_row(ids) is not None:
        raise ValueError("topk_ids repeats an id within a row")


def _check_sum(name: str, logprob: NDArray[Any]) -> None:
    """No row of different tokens has more than all of the probability."""
    total = np.einsum("ij->i", np.exp(logprob)).max(initial=0)  # four times as fast as `sum`
    if total > 1 + SUM_SLACK:
        raise ValueError(f"the probabilities of {name} add up to {total:.4g} in a row, which is more than 1")


def _any_in_a_row(neighbours: NDArray[np.bool_], width: int) -> np.bool_:
    """Whether any pair of neighbours in a flattened matrix is marked that lies in one row."""
    neighbours[width - 1 :: width] = False
    return neighbours.any()
