"""JSON or safetensors: what a score body is, and what its sender wants back."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Response
from pydantic import ValidationError

from tutelage.serving import BY_ACCEPT, JSON, ServiceProblem, accepted, media_type
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain
from tutelage_client.wire import MEDIA_TYPE, EntryDtype, ScoreReply, ScoreRequest, decode_request, encode_reply
from tutelage_client.wire.scoring import MOST_SEQUENCES, too_many


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
    form = media_type(content_type)
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
    return accepted(accept, JSON, MEDIA_TYPE, "scores")


def write_reply(reply: ScoreReply, form: str, entry_dtype: EntryDtype) -> Response:
    return Response(WRITERS[form](reply, entry_dtype), media_type=form, headers=BY_ACCEPT)
