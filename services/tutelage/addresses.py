"""Where teachers may be: an allow-list, and the addresses that no list makes a teacher's.

A host that is a name is looked up, and every address that it has is held to both. Who connects does so to what was
looked up and held to them, and never looks again.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from tutelage_client.errors import InvalidInput, TutelageError

Address = IPv4Address | IPv6Address
LOOPBACK = ("127.0.0.0/8", "::1/128")
PORTS = {"http": 80, "https": 443}
LONGEST_NAME = 253

# "This machine", neighbours on the link, groups, what is reserved, and what clouds tell their machines' secrets at.
NEVER = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "100.100.100.200/32", "192.0.0.192/32"),
            *("::/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128", "fd20:ce::254/128"),
        ),
    )
)
NAT64 = IPv6Network("64:ff9b::/96")

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_PATTERN = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_ENTRY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]+|[^\[\]]*:[^\[\]]*:[^\[\]]*)(?::(?P<port>\d{1,5}))?")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


class NotAllowed(TutelageError):
    """No teacher may be at this address."""


@dataclass(frozen=True, slots=True)
class Door:
    """Of a teacher's URL what says where it is. host: a name in lower case, or an address."""

    scheme: str
    host: str | Address
    port: int
    url: str


def door(url: str) -> Door:
    """The parts of a teacher's URL, which is a scheme, a host and a port and nothing else.

    Raises:
        InvalidInput: it is more, or none; the sentence repeats nothing of a password.
    """
    sentence = _flaw(url)
    if sentence is not None:
        raise InvalidInput(f"url: {sentence}; give http://HOST:PORT, as the teacher's --public-url", "url")
    parts = urlsplit(url)
    host, port = _host(parts.hostname or ""), parts.port or PORTS[parts.scheme]
    return Door(parts.scheme, host, port, f"{parts.scheme}://{parts.netloc}")


def _flaw(url: str) -> str | None:
    if not re.fullmatch(r"[!-\[\]-~]+", url):
        return "an address has no blanks, backslashes or characters beyond ASCII"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "its port is no number up to 65535, or a bracket is not closed"
    if parts.scheme not in PORTS:
        return "it begins with http:// or https://"
    if "@" in parts.netloc:
        return "it holds a user or a password, which whoever lists teachers would see; trainers have keys in files"
    for mark, name in (("?", "a query"), ("#", "a fragment")):
        if mark in url:
            return f"it holds {name}, which would not reach the teacher"
    if parts.path not in ("", "/"):
        return f"it holds the path {parts.path!r}, but a teacher's routes begin at the root of its address"
    host = parts.hostname or ""
    written = f"[{host}]" if ":" in host else host
    if port == 0 or parts.netloc.lower() not in (written, f"{written}:{port}"):
        return f"{parts.netloc!r} is no host with a port from 1 to 65535 or without one"
    return None if ":" in host and "%" not in host else _flaw_of_name(host)


def _flaw_of_name(host: str) -> str | None:
    if isinstance(_host(host), IPv4Address):
        return None
    if not _NAME.fullmatch(host) or len(host) > LONGEST_NAME:
        return f"{host!r} is neither a host's name nor an address"
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return f"{host!r} is an address in another form than four decimal numbers with dots"
    return None


def _host(text: str) -> str | Address:
    try:
        return ip_address(text)
    except ValueError:
        return text.removesuffix(".")


def look_up(found: Door) -> tuple[Address, ...]:
    """Every address of its host.

    Raises:
        OSError: its name is not known here.
    """
    if not isinstance(found.host, str):
        return (found.host,)
    told = socket.getaddrinfo(found.host, found.port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(ip_address(place[0]) for *_, place in told))


@dataclass(frozen=True, slots=True)
class Entry:
    """One of the list. network: None where it names hosts; port: None is any."""

    pattern: str
    network: Any
    port: int | None

    @classmethod
    def read(cls, text: str) -> Entry:
        """Raises: InvalidInput: it is none."""
        parts = _ENTRY.fullmatch(text.strip().lower())
        port = None if parts is None or parts["port"] is None else int(parts["port"])
        if parts is None or (port is not None and not 0 < port < 65536):
            raise _no_entry(text)
        host = parts["host"].strip("[]")
        try:
            return cls(host, ip_network(host), port)
        except ValueError as error:
            if "/" in host or not _PATTERN.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2]):
                raise _no_entry(text) from error
        return cls(host, None, port)

    def names(self, found: Door) -> bool:
        """Whether it holds the host by its name, whatever address that has."""
        if self.network is not None or not isinstance(found.host, str) or self.port not in (None, found.port):
            return False
        if self.pattern.startswith("*."):
            return found.host.endswith(self.pattern[1:])
        return found.host == self.pattern

    def holds(self, address: Address, port: int) -> bool:
        return self.network is not None and self.port in (None, port) and address in self.network


def _no_entry(text: str) -> InvalidInput:
    forms = "HOST, *.DOMAIN or NETWORK, each with :PORT where one is meant, as *.teachers.svc:8200 or 10.0.0.0/8"
    return InvalidInput(f"teacher-addresses: {text!r} is none; give {forms}", "teacher_addresses")


class Allowed:
    """Which addresses teachers may have."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Raises: InvalidInput: one is none."""
        self._entries = tuple(map(Entry.read, entries))

    def check(self, found: Door, addresses: Sequence[Address]) -> None:
        """Raises: NotAllowed: with a sentence that names the address."""
        for address in addresses:
            if any(meant in network for meant in _meant(address) for network in NEVER):
                raise NotAllowed(f"{_told(found, address)} can be no teacher's: it is link-local or reserved")
        if any(entry.names(found) for entry in self._entries):
            return
        for address in map(_plain, addresses):
            if not any(entry.holds(address, found.port) for entry in self._entries):
                raise NotAllowed(f"{_told(found, address)} is none of those that --teacher-addresses allows")


def _told(found: Door, address: Address) -> str:
    where = f"{found.host} ({address})" if isinstance(found.host, str) else str(address)
    return f"{where}, port {found.port},"


def _plain(address: Address) -> Address:
    """An IPv4 address in the clothes of IPv6 as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _meant(address: Address) -> Iterator[Address]:
    """Itself, and the IPv4 address that a gateway would make of it."""
    yield address
    if isinstance(address, IPv6Address):
        yield from filter(None, (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())))
        if address in NAT64:
            yield IPv4Address(int(address) & 0xFFFF_FFFF)


def split(given: Any) -> Any:
    """In the environment, and after one flag, they stand in one line with commas."""
    lines = [given] if isinstance(given, str) else given
    return tuple(each for line in lines for each in line.split(",")) if isinstance(lines, list | tuple) else given


def _checked(entries: tuple[str, ...]) -> tuple[str, ...]:
    Allowed(entries)
    return entries


Addresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split), AfterValidator(_checked)]
"""Of a setting: entries of the list, as flags, or in one line with commas."""
