"""What the sender of a request wants back, of two forms that an answer may have: the header Accept, weighed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tutelage.serving.problems import ServiceProblem

BY_ACCEPT = {"Vary": "Accept"}
_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def accepted(accept: str, usual: str, other: str, what: str) -> str:
    """The media type to answer in: the more welcome one; where both are as welcome, `other` if it is named.

    what: that comes so, such as "scores"
    Raises:
        ServiceProblem: 406 where neither is accepted, or a weight is none.
    """
    weights = dict(map(_weighed, filter(str.strip, accept.split(",")))) or {"*/*": 1.0}
    forms = (other, usual) if other in weights else (usual, other)
    form = max(forms, key=lambda each: _weight(each, weights))
    if not _weight(form, weights):
        raise _not_acceptable(f"{what} come as {usual} or {other}, not {accept!r}; accept one of them")
    return form


def media_type(header: str) -> str:
    """Of a Content-Type, or of a part of Accept, without its parameters."""
    return header.partition(";")[0].strip().lower()


def _weight(form: str, weights: Mapping[str, float]) -> float:
    """How welcome a form is, by the narrowest range that it is in."""
    ranges = (form, f"{form.partition('/')[0]}/*", "*/*")
    return next((weights[each] for each in ranges if each in weights), 0.0)


def _weighed(part: str) -> tuple[str, float]:
    """A media range of an Accept header, and its weight from 0 to 1."""
    parameters = [each.strip().lower() for each in part.split(";")[1:]]
    text = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    if not _WEIGHT.fullmatch(text):
        raise _not_acceptable(f"Accept has the weight q={text}; a weight is a number from 0 to 1, such as q=0.5")
    return media_type(part), float(text)


def _not_acceptable(sentence: str) -> ServiceProblem:
    return ServiceProblem(406, "not_acceptable", sentence, field="Accept", headers=BY_ACCEPT)
