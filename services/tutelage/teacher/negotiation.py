"""JSON or safetensors: what a score body is, and what its sender wants back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from fastapi import Response
from pydantic import ValidationError

from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain
from tutelage_client.wire import MEDIA_TYPE, EntryDtype, ScoreReply, ScoreRequest, decode_request, encode_reply
from tutelage_client.wire.scoring import MOST_SEQUENCES, too_many

JSON = "application/json"
_BY_ACCEPT = {"Vary": "Accept"}
_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def _read_json(body: bytes) -> ScoreRequest:
    """Whatever is counted is an object, and a brace cannot be written in another way."""
    objects = body.count(b"{") - 1
    if objects > 2 * MOST_SEQUENCES:
        raise InvalidInput(too_many(objects), "sequences")
    return ScoreRequest.model_validate_json(body)


READERS: dict[str, Callable[[bytes], ScoreRequest]] = {
    JSON: _read_json,
    MEDIA_TYPE: decode_request,
}
WRITERS: dict[str, Callable[[ScoreReply, EntryDtype], bytes]] = {
    JSON: lambda reply, _: reply.model_dump_json(exclude_none=True).encode(),
    MEDIA_TYPE: encode_reply,
}


def read_request(body: bytes, content_type: str) -> ScoreRequest:
    """The score request in `body`.

    Raises:
        ServiceProblem: 415 for another content type. InvalidInput: what is wrong with the body.
    """
    form = _media_type(content_type)
    if form not in READERS:
        raise ServiceProblem(415, "unsupported_media_type", _other_form(form), field="Content-Type")
    try:
        return READERS[form](body)
    except ValidationError as error:
        raise InvalidInput(*explain(error)) from error


def _other_form(form: str) -> str:
    told = f"not {form!r}" if form else "and none is named"
    return f"a score body is {' or '.join(READERS)}, {told}; say which in Content-Type"


def reply_form(accept: str) -> str:
    """The form to answer in: the more welcome one. Where both are as welcome, safetensors if it is named, else JSON.

    Raises:
        ServiceProblem: 406 where neither is accepted, or a weight is none.
    """
    weights = dict(map(_weighed, filter(str.strip, accept.split(",")))) or {"*/*": 1.0}
    forms = (MEDIA_TYPE, JSON) if MEDIA_TYPE in weights else (JSON, MEDIA_TYPE)
    form = max(forms, key=lambda each: _weight(each, weights))
    if not _weight(form, weights):
        raise _not_acceptable(f"scores come as {' or '.join(WRITERS)}, not {accept!r}; accept one of them")
    return form


def write_reply(reply: ScoreReply, form: str, entry_dtype: EntryDtype) -> Response:
    return Response(WRITERS[form](reply, entry_dtype), media_type=form, headers=_BY_ACCEPT)


def _weight(form: str, weights: Mapping[str, float]) -> float:
    """How welcome a form is, by the narrowest range that it is in."""
    return next((weights[each] for each in (form, "application/*", "*/*") if each in weights), 0.0)


def _weighed(part: str) -> tuple[str, float]:
    """A media range of an Accept header, and its weight from 0 to 1."""
    parameters = [each.strip().lower() for each in part.split(";")[1:]]
    text = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    if not _WEIGHT.fullmatch(text):
        raise _not_acceptable(f"Accept has the weight q={text}; a weight is a number from 0 to 1, such as q=0.5")
    return _media_type(part), float(text)


def _not_acceptable(sentence: str) -> ServiceProblem:
    return ServiceProblem(406, "not_acceptable", sentence, field="Accept", headers=_BY_ACCEPT)


def _media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()
