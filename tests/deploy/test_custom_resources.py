"""Objects of other projects' kinds against the definitions that those projects publish.

The definitions are not part of this repository: TUTELAGE_TEST_CRDS names a folder with them, as NAME.yaml files.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import OVERLAYS, of_kind, overlay
from jsonschema_rs import validator_for

from tutelage.coordinator.launchers import Launch
from tutelage.coordinator.launchers.kubernetes import train_job

FOLDER = os.environ.get("TUTELAGE_TEST_CRDS")


@cache
def definitions() -> dict[tuple[str, str], dict[str, Any]]:
    """The schema of each apiVersion and kind; fields that it does not know are refused."""
    if FOLDER is None:
        pytest.skip("TUTELAGE_TEST_CRDS names no folder with the definitions of custom resources")
    found = {}
    for path in sorted(Path(FOLDER).glob("*.yaml")):
        documents = [each for each in yaml.safe_load_all(path.read_text()) if each]
        for definition in of_kind(documents, "CustomResourceDefinition"):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(each) for name, each in schema.items()}
    open_ended = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & schema.keys()
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        closed["additionalProperties"] = False
    return closed


def test_custom_resources_fit_their_definitions() -> None:
    known, checked = definitions(), set()
    for name in OVERLAYS:
        for each in overlay(name):
            schema = known.get((each["apiVersion"], each["kind"]))
            if schema is not None:
                errors = [
                    f"{error.instance_path}: {error.message}" for error in validator_for(schema).iter_errors(each)
                ]
                assert errors == [], f"{name}: {each['kind']} {each['metadata']['name']}"
                checked.add(each["kind"])
    assert checked == {"LeaderWorkerSet", "ScaledObject", "TriggerAuthentication"}


def test_the_jobs_of_a_runtime_fit_the_definition_of_a_job_set() -> None:
    """Runtimes themselves are not among the definitions; what they are made of is."""
    schema = definitions()["jobset.x-k8s.io/v1alpha2", "JobSet"]["properties"]["spec"]
    [runtime] = of_kind(overlay("large"), "TrainingRuntime")
    errors = [f"{e.instance_path}: {e.message}" for e in validator_for(schema).iter_errors(template_of(runtime))]
    assert errors == []


def template_of(runtime: dict[str, Any]) -> dict[str, Any]:
    return runtime["spec"]["template"]["spec"]


def test_a_train_job_as_it_is_launched_fits_its_definition() -> None:
    schema = definitions()["trainer.kubeflow.org/v1alpha1", "TrainJob"]
    launched = train_job(Launch("run-0123456789abcdef", 12), "trainer", nodes=3)
    errors = [f"{e.instance_path}: {e.message}" for e in validator_for(schema).iter_errors(launched)]
    assert errors == []


def test_a_field_that_a_definition_does_not_know_is_found() -> None:
    schema = definitions()["keda.sh/v1alpha1", "ScaledObject"]
    [scaled] = of_kind(overlay("production"), "ScaledObject")
    wrong = scaled | {"spec": scaled["spec"] | {"coolDownPeriod": 3}}
    assert not validator_for(schema).is_valid(wrong)
