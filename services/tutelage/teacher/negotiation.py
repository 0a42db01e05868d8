"""JSON or safetensors: what a score body is, and what its sender wants back."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Response
from pydantic import ValidationError

from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain
from tutelage_client.wire import MEDIA_TYPE, EntryDtype, ScoreReply, ScoreRequest, decode_request, encode_reply
from tutelage_client.wire.scoring import MOST_SEQUENCES, too_many

JSON = "application/json"


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
        raise ServiceProblem(415, "unsupported_media_type", f"a score body is {' or '.join(READERS)}, not {form!r}")
    try:
        return READERS[form](body)
    except ValidationError as error:
        raise InvalidInput(*explain(error)) from error


def reply_form(accept: str) -> str:
    """The form to answer in: safetensors where it is named, JSON where anything is welcome.

    Raises:
        ServiceProblem: 406 where neither is accepted.
    """
    wanted = {_media_type(part) for part in accept.split(",") if part.strip()}
    if MEDIA_TYPE in wanted:
        return MEDIA_TYPE
    if not wanted or wanted & {JSON, "*/*", "application/*"}:
        return JSON
    raise ServiceProblem(
        406, "not_acceptable", f"scores come as {' or '.join(WRITERS)}, not {accept!r}", field="Accept"
    )


def write_reply(reply: ScoreReply, form: str, entry_dtype: EntryDtype) -> Response:
    return Response(WRITERS[form](reply, entry_dtype), media_type=form)


def _media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()
