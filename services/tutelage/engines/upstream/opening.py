"""Engines of servers that speak JSON of their own."""

from __future__ import annotations

from collections.abc import Callable

from tutelage.engines.options import UpstreamOptions
from tutelage.engines.upstream.calls import Calls
from tutelage.engines.upstream.dialect import Dialect
from tutelage.engines.upstream.engine import UpstreamEngine
from tutelage.engines.upstream.http import UpstreamHttp, read_key
from tutelage.engines.upstream.local import read_local


def open_http(
    options: UpstreamOptions,
    name: str,
    dialect: Callable[[UpstreamHttp, UpstreamOptions, int], Dialect],
    tokens_at_once: Callable[[int], int | None] = lambda _: None,
) -> UpstreamEngine:
    """tokens_at_once: by the size of the vocabulary, where the options do not say

    Raises:
        InvalidInput: the tokenizer directory or the key file cannot be used.
    """
    local = read_local(options.model, options.revision)
    calls = Calls.of(options, options.tokens_at_once or tokens_at_once(local.vocabulary_size))
    http = UpstreamHttp(calls, read_key(options.api_key_file))
    spoken = dialect(http, options, local.vocabulary_size)
    return UpstreamEngine(options, name, local, spoken, options.max_concurrency, calls)
