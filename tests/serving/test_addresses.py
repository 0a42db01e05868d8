"""Where teachers may be: what a URL may hold, what a list allows, and what no list makes a teacher's."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp

from tutelage.addresses import LOOPBACK, Allowed, NotAllowed, door, look_up
from tutelage.trainer.settings import Settings
from tutelage_client.errors import InvalidInput

ANYWHERE = ("0.0.0.0/0", "::/0")

# What is more, or other, than a scheme, a host and a port; and a word of what is said of it.
MALFORMED = {
    "http://user:pw@10.0.0.1/": "user or a password",
    "http://user@teacher:8200": "user or a password",
    "http://@teacher": "user or a password",
    "http://127.0.0.1:80@evil.example": "user or a password",
    "http://teacher?": "a query",
    "http://teacher/?to=http://169.254.169.254": "a query",
    "http://teacher#@127.0.0.1": "a fragment",
    "http://teacher/#": "a fragment",
    "http://169.254.169.254/latest": "'/latest'",
    "http://teacher//": "'//'",
    "ftp://teacher": "http:// or https://",
    "//teacher": "http:// or https://",
    "http:///teacher": "'/teacher'",
    "http://": "neither",
    "http://:80": "neither",
    "http://teacher:0": "1 to 65535",
    "http://teacher:": "1 to 65535",
    "http://teacher:080": "1 to 65535",
    "http://teacher:65536": "up to 65535",
    "http://teacher:http": "up to 65535",
    "http://teacher:80:80": "up to 65535",
    "http://[::1]x:80": "is no host",
    "http://[::1": "bracket",
    "http://[fe80::1%25eth0]": "neither",
    "http://[::1%1]": "neither",
    "http://2130706433": "another form",
    "http://017700000001": "another form",
    "http://0x7f000001": "another form",
    "http://0x7f.0.0.1": "neither|another form",
    "http://127.1": "another form",
    "http://0177.0.0.1": "another form",
    "http://127.0.0.1.": "another form",
    "http://127.0.0.256": "another form",
    "http://te acher": "blanks",
    "http://teacher\\@evil.example": "backslashes",
    "http://tea\tcher": "blanks",
    "http://teacher\n": "blanks",
    "http://ｌocalhost": "beyond ASCII",
    "http://١٢٧.0.0.1": "beyond ASCII",
    "http://te*cher": "neither",
    "http://-teacher": "neither",
    "http://teacher..svc": "neither",
    f"http://{'a' * 64}": "neither",
    f"http://{'.'.join(['a' * 60] * 5)}": "neither",
}

# What is never a teacher's, however it is written.
NEVER = [
    *("http://169.254.169.254", "http://169.254.0.1:80", "http://0.0.0.0:8200", "http://0.1.2.3", "http://224.0.0.1"),
    *("http://255.255.255.255", "http://100.100.100.200", "http://[::]", "http://[fe80::1]", "http://[ff02::1]"),
    *(
        "http://[fd00:ec2::254]",
        "http://[::ffff:169.254.169.254]",
        "http://[::ffff:a9fe:a9fe]",
        "http://[::ffff:0.0.0.0]",
    ),
    *("http://[64:ff9b::a9fe:a9fe]", "http://[2002:a9fe:a9fe::1]"),
]


@pytest.mark.parametrize(("url", "said"), MALFORMED.items())
def test_a_url_is_a_scheme_a_host_and_a_port(url: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        door(url)
    assert refused.value.field == "url"
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "kept"),
    [
        ("http://teacher", "teacher", 80, "http://teacher"),
        ("https://Teacher.Teachers.svc./", "teacher.teachers.svc", 443, "https://Teacher.Teachers.svc."),
        ("http://tutelage_teacher_1:8200", "tutelage_teacher_1", 8200, "http://tutelage_teacher_1:8200"),
        ("HTTP://127.0.0.1:65535/", ip_address("127.0.0.1"), 65535, "http://127.0.0.1:65535"),
        ("http://[::1]:8200", ip_address("::1"), 8200, "http://[::1]:8200"),
    ],
)
def test_what_a_url_says(url: str, host: object, port: int, kept: str) -> None:
    found = door(url)
    assert (found.host, found.port, found.url) == (host, port, kept)


@pytest.mark.parametrize("url", NEVER)
def test_no_list_allows_what_is_never_a_teachers(url: str) -> None:
    found = door(url)
    with pytest.raises(NotAllowed, match="can be no teacher's"):
        Allowed(ANYWHERE).check(found, look_up(found))


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "0.0.0.0", "::", "fd00:ec2::254"])
def test_nor_a_name_that_leads_there(address: str) -> None:
    """One of several is enough: who connects may take any."""
    told = [ip_address("10.0.0.1"), ip_address(address)]
    with pytest.raises(NotAllowed, match="can be no teacher's") as refused:
        Allowed(["teacher.example", *ANYWHERE]).check(door("http://teacher.example"), told)
    assert f"teacher.example ({address}), port 80," in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "url", "address", "allowed"),
    [
        ("10.0.0.0/8", "http://10.1.2.3:8200", None, True),
        ("10.0.0.0/8", "http://11.1.2.3:8200", None, False),
        ("10.0.0.0/8:8200", "http://10.1.2.3:8200", None, True),
        ("10.0.0.0/8:8200", "http://10.1.2.3:6379", None, False),
        ("10.0.0.0/8", "http://teacher", "10.1.2.3", True),
        ("10.0.0.0/8", "http://teacher", "192.168.0.1", False),
        ("10.0.0.0/8", "http://[::ffff:10.0.0.1]", None, True),
        ("127.0.0.1", "http://127.0.0.1:9", None, True),
        ("127.0.0.1", "http://127.0.0.2:9", None, False),
        ("127.0.0.1", "http://[::ffff:127.0.0.2]", None, False),
        ("::1", "http://[::1]:9", None, True),
        ("[::1]:8200", "http://[::1]:8200", None, True),
        ("[::1]:8200", "http://[::1]:8201", None, False),
        ("fd00:1::/32", "http://[fd00:1::7]", None, True),
        ("[fd00:1::/32]:80", "http://[fd00:2::7]", None, False),
        ("teacher", "http://TEACHER:1", "10.0.0.1", True),
        ("Teacher:8200", "http://teacher.:8200", "10.0.0.1", True),
        ("teacher:8200", "http://teacher", "10.0.0.1", False),
        ("teacher", "http://teacher.evil.example", "10.0.0.1", False),
        ("*.teachers.svc:8200", "http://big.teachers.svc:8200", "10.0.0.1", True),
        ("*.teachers.svc", "http://a.b.teachers.svc", "10.0.0.1", True),
        ("*.teachers.svc", "http://teachers.svc", "10.0.0.1", False),
        ("*.teachers.svc", "http://evilteachers.svc", "10.0.0.1", False),
        ("*.teachers.svc", "http://big.teachers.svc.evil.example", "10.0.0.1", False),
    ],
)
def test_what_an_entry_allows(entry: str, url: str, address: str | None, allowed: bool) -> None:
    found = door(url)
    told = look_up(found) if address is None else [ip_address(address)]
    if allowed:
        Allowed([entry]).check(found, told)
    else:
        with pytest.raises(NotAllowed, match="none of those that --teacher-addresses allows"):
            Allowed([entry]).check(found, told)


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.8.8.8:1", "http://[::1]:1", "http://localhost."])
def test_by_default_teachers_are_on_this_machine(url: str) -> None:
    found = door(url)
    Allowed(LOOPBACK).check(found, look_up(found))
    for other in ("http://10.0.0.1", "http://192.168.1.1", "http://8.8.8.8"):
        with pytest.raises(NotAllowed):
            Allowed(LOOPBACK).check(door(other), look_up(door(other)))


def test_one_address_of_several_that_is_not_listed_is_enough() -> None:
    told = [ip_address("127.0.0.1"), ip_address("10.0.0.1")]
    with pytest.raises(NotAllowed, match=r"10\.0\.0\.1"):
        Allowed(LOOPBACK).check(door("http://teacher"), told)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "300.0.0.1",
        "http://teacher",
        "teacher:0",
        "teacher:x",
        "a/b",
        "[::1",
    ],
)
def test_an_entry_that_is_none_is_told(entry: str) -> None:
    with pytest.raises(InvalidInput, match="teacher-addresses"):
        Allowed([entry])
    with pytest.raises(ValidationError, match="is none; give HOST"):
        Settings.model_validate({"teacher_addresses": [entry]})


@pytest.mark.parametrize(
    "flags",
    [
        ["--teacher-addresses", "teacher:8200,10.0.0.0/8"],
        ["--teacher-addresses", "teacher:8200", "--teacher-addresses", "10.0.0.0/8"],
    ],
)
def test_a_list_is_given_as_flags_or_in_one_line(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("teacher:8200", "10.0.0.0/8")
    assert CliApp.run(Settings, cli_args=flags).teacher_addresses == wanted
    monkeypatch.setenv("TUTELAGE_TRAINER_TEACHER_ADDRESSES", ",".join(wanted))
    assert Settings().teacher_addresses == wanted


def test_a_name_that_nobody_knows_is_an_error_of_the_system() -> None:
    with pytest.raises(socket.gaierror):
        look_up(door("http://nobody.invalid"))
