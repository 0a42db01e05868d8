"""A teacher is reached where teachers may be, by what its name was looked up to; nobody else is sent the key."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tutelage.addresses import LOOPBACK, Address, Allowed, Door
from tutelage.trainer.exits import TeacherFailed, TeacherOutage, asking_teacher
from tutelage.trainer.reaching import Reaching
from tutelage_client.errors import InvalidInput
from tutelage_client.http import RetryPolicy
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import GenerateRequest

KEY = "the-key-of-teachers"
ONCE = RetryPolicy(deadline_s=0)
HERE = Allowed(LOOPBACK)


@dataclass
class Listener:
    """A server that answers everything alike and remembers what it heard."""

    answer: bytes
    port: int = 0
    heard: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append("")
        self.heard[-1] = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(self.answer)
        await writer.drain()
        writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def listening(status: str, *headers: str, body: str = "", tls: Any = None) -> AsyncIterator[Listener]:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", body]
    listener = Listener("\r\n".join(lines).encode())
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0, ssl=tls)
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


async def ask(url: str, allowed: Allowed, names: Callable[[Door], Sequence[Address]] | None = None) -> None:
    """For text, as a trainer does with its key."""
    reaching = Reaching(url, allowed) if names is None else Reaching(url, allowed, names)
    async with TeacherClient(url, KEY, reaching, ONCE, "run") as client:
        with asking_teacher():
            await client.generate(GenerateRequest(prompts=["p"], max_tokens=1))


def named(*turns: str) -> Callable[[Door], Sequence[Address]]:
    """A name server that answers each time with the next of these."""
    answers: Iterator[str] = iter(turns)
    return lambda _: [ip_address(each) for each in next(answers).split()]


async def test_the_key_goes_nowhere_but_where_the_list_says() -> None:
    async with listening("200 OK") as listener:
        for allowed in (["10.0.0.0/8"], ["127.0.0.1:1"], ["teacher"], ["::1"]):
            with pytest.raises(
                TeacherFailed, match=rf"nothing was sent.*127\.0\.0\.1, port {listener.port}"
            ) as refused:
                await ask(listener.url, Allowed(allowed))
            assert refused.value.code == "teacher_not_allowed"
        with pytest.raises(TeacherFailed, match="nothing was sent"):
            await ask(f"http://localhost:{listener.port}", Allowed(["10.0.0.0/8"]))
        assert listener.heard == []
        with pytest.raises(TeacherFailed, match="no teacher"):
            await ask(listener.url, HERE)
        assert f"authorization: bearer {KEY}" in listener.heard[0].lower(), "a request that arrives is heard"


async def test_it_connects_to_what_was_looked_up() -> None:
    """By a name that the system's own look-up does not know, and past an address where nobody listens."""
    async with listening("200 OK") as listener:
        url = f"http://teacher.invalid:{listener.port}"
        with pytest.raises(TeacherFailed, match="no teacher"):
            await ask(url, HERE, named("127.0.0.2 127.0.0.1"))
    assert f"host: teacher.invalid:{listener.port}\r\n" in listener.heard[0].lower()


async def test_a_name_that_leads_elsewhere_later_is_followed_no_further() -> None:
    async with listening("503 Busy") as listener:
        names = named("127.0.0.1", "169.254.169.254", "127.0.0.1 10.0.0.1")
        url = f"http://teacher.invalid:{listener.port}"
        for said in ("no teacher", r"teacher\.invalid \(169\.254\.169\.254\)", r"teacher\.invalid \(10\.0\.0\.1\)"):
            with pytest.raises(TeacherFailed, match=said):
                await ask(url, HERE, names)
    assert len(listener.heard) == 1


async def test_a_redirect_is_not_followed() -> None:
    async with (
        listening("200 OK") as elsewhere,
        listening("307 Temporary Redirect", f"Location: {elsewhere.url}/") as teacher,
    ):
        with pytest.raises(TeacherFailed, match="no teacher"):
            await ask(teacher.url, HERE)
    assert (len(teacher.heard), elsewhere.heard) == (1, [])


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "418 Teapot", "500 Oops"])
@pytest.mark.parametrize("kind", ["text/html", "application/json", "application/problem+json"])
async def test_of_what_is_no_teacher_the_run_is_told_nothing(status: str, kind: str) -> None:
    body = '{"code": "inside", "detail": "inside", "generations": "inside"}'
    async with listening(status, f"Content-Type: {kind}", body=body) as other:
        with pytest.raises(TeacherFailed) as failed:
            await ask(other.url, HERE)
    assert failed.value.code == "teacher_refused"
    assert "what answers at the teacher's address is no teacher" in str(failed.value)
    assert not any(word in str(failed.value) for word in ("inside", *status.split()))


async def test_what_a_teacher_says_itself_is_told() -> None:
    body = '{"code": "unauthorized", "detail": "the key is none of mine"}'
    async with listening("401 Unauthorized", "Content-Type: application/problem+json", body=body) as teacher:
        with pytest.raises(TeacherFailed, match=r"unauthorized: the key is none of mine; .*--teacher-key-file"):
            await ask(teacher.url, HERE)


async def test_why_nobody_answers_is_not_told() -> None:
    """Neither a closed port nor a name that nobody knows."""
    async with listening("200 OK") as listener:
        pass
    for url in (listener.url, "http://nobody.invalid:8200"):
        with pytest.raises(TeacherOutage) as failed:
            await ask(url, Allowed([*LOOPBACK, "nobody.invalid"]))
        assert str(failed.value) == f"the teacher was waited for in vain: no answer from {url}/v1/generate"


async def test_a_registry_that_holds_no_address_is_told() -> None:
    with pytest.raises(InvalidInput, match="a user or a password"):
        Reaching("http://user:pw@127.0.0.1", HERE)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A folder with key and certificate of teacher.invalid."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=teacher.invalid"]
    command += ["-addext", "subjectAltName=DNS:teacher.invalid", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    return tmp_path


async def test_the_certificate_is_held_to_the_name(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    async with listening("200 OK", tls=tls) as teacher:
        with pytest.raises(TeacherFailed, match="no teacher"):
            await ask(f"https://teacher.invalid:{teacher.port}", HERE, named("127.0.0.1"))
        assert f"authorization: bearer {KEY}" in teacher.heard[0].lower()
        with pytest.raises(TeacherOutage):
            await ask(f"https://other.invalid:{teacher.port}", HERE, named("127.0.0.1"))
        assert len([heard for heard in teacher.heard if heard]) == 1


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening("200 OK") as proxy, listening("200 OK") as teacher:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        with pytest.raises(TeacherFailed, match="no teacher"):
            await ask(teacher.url, HERE)
    assert (proxy.heard, len(teacher.heard)) == ([], 1)
