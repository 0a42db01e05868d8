"""A job as bytes: one line of JSON with a schema version, then the payload as it is.

A field that this version does not know is passed over, so that a newer one can add what may be left out.

The checksum over all of it is kept by `tutelage.queue.blobs`, so that header and payload are covered alike.
"""

from __future__ import annotations

import json
from dataclasses import fields

from tutelage.queue.base import Job
from tutelage.queue.blobs import DamagedBody
from tutelage_client.errors import TutelageError

SCHEMA = 1
_KNOWN = {field.name for field in fields(Job)} - {"payload"}


class OtherSchema(TutelageError):
    """A sound envelope that this version cannot read; another worker may."""


def pack(job: Job) -> bytes:
    """The job as bytes."""
    header = {
        "schema": SCHEMA,
        "id": job.id,
        "queue": job.queue,
        "reply_to": job.reply_to,
        "run_id": job.run_id,
        "tokens": job.tokens,
        "traceparent": job.traceparent,
    }
    if job.tracestate:  # left out where there is none, as workers of version 0.1 know no such field
        header["tracestate"] = job.tracestate
    return json.dumps(header).encode() + b"\n" + job.payload


def unpack(body: bytes) -> Job:
    """The job that `pack` wrote.

    Raises:
        OtherSchema: written by another version.
        DamagedBody: not an envelope.
    """
    line, _, payload = body.partition(b"\n")
    try:
        header = json.loads(line)
        schema = header.pop("schema")
        if schema != SCHEMA:
            raise OtherSchema(f"the envelope has schema {schema}, this worker reads {SCHEMA}; upgrade the worker")
        return Job(**{name: value for name, value in header.items() if name in _KNOWN}, payload=payload)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedBody(f"the job's envelope cannot be read: {error!r}") from error
