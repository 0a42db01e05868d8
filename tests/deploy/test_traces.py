"""Where services send their spans when they are deployed: nowhere, until somebody says where to."""

from __future__ import annotations

from typing import Any

import pytest
from deployed import OVERLAYS, compose, containers, named, overlay, variables

from tutelage.tracing import is_recorded
from tutelage.tracing.export import exported

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
OURS = ("coordinator", "trainer", "teacher", "sampler")


def sending(objects: list[dict[str, Any]]) -> dict[str, str | None]:
    """By workload, where each container of ours sends to."""
    return {
        name: variables(objects, container).get(ENDPOINT)
        for name, _, container in containers(objects)
        if container["name"] in OURS
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_of_a_service_reads_where_to_if_there_is_a_map_of_it(name: str) -> None:
    objects = overlay(name)
    told = set(sending(objects).values())
    assert told == ({"http://collector.monitoring:4318"} if name == "large" else {None})
    for workload, _, container in containers(objects):
        if container["name"] in OURS:
            optional = [each["configMapRef"] for each in container["envFrom"] if each["configMapRef"].get("optional")]
            assert [ref["name"].startswith("traces") for ref in optional] == [True], workload


def test_all_that_send_may_reach_the_collector() -> None:
    objects = overlay("large")
    (rule,) = named(objects, "NetworkPolicy", "traces")["spec"]["podSelector"]["matchExpressions"]
    assert {name.split("-")[0] for name in sending(objects)} <= set(rule["values"])
    (out,) = named(objects, "NetworkPolicy", "traces")["spec"]["egress"]
    assert out["ports"] == [{"protocol": "TCP", "port": 4318}]


def test_compose_hands_on_where_to_and_nothing_where_it_is_not_said() -> None:
    for name, service in compose()["services"].items():
        if name not in ("postgres", "redis"):
            assert service["environment"][ENDPOINT] == f"${{{ENDPOINT}:-}}", name


def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "")
    with exported("trainer"):
        assert not is_recorded()
