"""What the transport benchmark counts: equal scores on both sides, and the bytes that an entry takes."""

from __future__ import annotations

import pytest
from benchmarks.transport import cell, made, maps_by_token, own_json, states

from tutelage_client.wire.tensors import EntryDtype


@pytest.mark.parametrize(("entry_dtype", "most"), [("float32", 8.2), ("float16", 6.2)])
def test_an_entry_of_the_top_64_takes_its_bytes_and_little_more(entry_dtype: EntryDtype, most: float) -> None:
    found = cell("top 64", made(64), maps_by_token(made(64)), 1, entry_dtype)
    assert found.equal
    assert found.counted["bytes_an_entry"] <= most


def test_hidden_states_of_a_bfloat16_model_travel_as_they_are() -> None:
    found = cell("hidden", states(), own_json(states()), 1, "bfloat16")
    assert found.equal
    assert found.counted["bytes_an_entry"] <= 2.05
