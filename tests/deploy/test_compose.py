"""The compose file: who sees what, who waits for whom, and that the services read what it says."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deployed import REDIS, ROOT, WITH_COMPILER, compose, stages, unallowed, unread

COMPOSE = compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SERVICES[request.param]


def test_each_profile_is_a_whole_stack() -> None:
    for profile in ("cpu", "gpu"):
        up = {name for name, each in SERVICES.items() if profile in each.get("profiles", [profile])}
        assert {"postgres", "redis", "coordinator"} < up
        assert len([name for name in up if name.startswith(("teacher", "trainer"))]) == 2


def test_a_container_may_do_nothing_that_it_need_not(service: dict[str, Any]) -> None:
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert {"mem_limit", "cpus", "pids_limit", "stop_grace_period", "init"} <= service.keys()
    assert "build" in service or service["user"] in ("postgres", "redis")  # our images have a user of their own


def test_what_is_compiled_where_it_runs_can_be_loaded_from_there_and_nothing_else_can() -> None:
    """A tmpfs of Compose is mounted noexec unless it says otherwise; an emptyDir of Kubernetes is not."""
    executable = {name for name, each in SERVICES.items() for mount in each["tmpfs"] if "exec" in mount.split(",")}
    compiling = {name for name, each in SERVICES.items() if each.get("build", {}).get("target") in WITH_COMPILER}
    assert executable == compiling == {"teacher-gpu"}


def test_only_the_coordinator_is_published_and_on_loopback() -> None:
    published = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    assert list(published) == ["coordinator"]
    assert all(port.startswith("127.0.0.1:") for port in published["coordinator"])
    assert COMPOSE["networks"]["inside"]["internal"]
    outside = [name for name, each in SERVICES.items() if "outside" in each["networks"]]
    assert outside == ["coordinator"]


def test_variables_are_ones_that_the_services_read(service: dict[str, Any]) -> None:
    assert unread(list(service.get("environment", {}))) == []


def test_teachers_are_where_coordinator_and_trainers_let_teachers_be() -> None:
    told = [each.get("environment", {}) for each in SERVICES.values()]
    lists = [value for each in told for name, value in each.items() if name.endswith("_TEACHER_ADDRESSES")]
    teachers = [each["TUTELAGE_TEACHER_PUBLIC_URL"] for each in told if "TUTELAGE_TEACHER_PUBLIC_URL" in each]
    assert (len(lists), len(teachers)) == (3, 2), "the coordinator, two trainers"
    assert unallowed(lists, teachers) == []
    assert unallowed(lists[:1], ["http://coordinator:8400", "http://redis:6379"]) != []


def test_who_waits_for_a_service_can_tell_that_it_is_well(service: dict[str, Any]) -> None:
    for name, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        target = SERVICES[name].get("build", {}).get("target")
        checks = stages()[target].all("HEALTHCHECK") if target else SERVICES[name]["healthcheck"]["test"]
        assert checks
        assert checks != ["NONE"]


def test_images_are_built_from_targets_that_are_there(service: dict[str, Any]) -> None:
    if build := service.get("build"):
        assert build["target"] in stages()
        assert (ROOT / "docker" / build["context"] / build["dockerfile"]).is_file()


def test_every_secret_is_a_file_that_the_script_makes(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets"
    script.write_text((ROOT / "docker" / "make-secrets").read_text())
    subprocess.run(["sh", str(script)], check=True, timeout=30)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert {f"secrets/{name}" for name in made} == {each["file"] for each in COMPOSE["secrets"].values()}
    assert len(set(made.values())) == len(made)
    assert all(len(secret) > 30 and secret.isalnum() for secret in made.values())
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    subprocess.run(["sh", str(script)], check=True, timeout=30)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made


def test_a_secret_is_where_its_variable_says(service: dict[str, Any]) -> None:
    given = {each if isinstance(each, str) else each["source"] for each in service.get("secrets", [])}
    assert given <= COMPOSE["secrets"].keys()
    files = [value for name, value in service.get("environment", {}).items() if name.endswith("_FILE")]
    assert {Path(value).name for value in files} == (given if files else set())
    assert not [name for name in service.get("environment", {}) if name.endswith(("PASSWORD", "KEY", "TOKEN"))]


def test_each_user_of_the_queue_has_a_password() -> None:
    users = {line.split()[1] for line in (REDIS / "users.acl").read_text().splitlines()} - {"default"}
    assert {Path(each["target"]).name for each in SERVICES["redis"]["secrets"]} == users


def test_the_queue_forgets_nothing_by_itself() -> None:
    start = (REDIS / "start.sh").read_text()
    assert "--appendonly yes" in start
    assert "--maxmemory-policy noeviction" in start
