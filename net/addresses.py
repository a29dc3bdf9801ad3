"""Addresses of servers: how they are written, and whether one can be reached from this machine alone."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from rawmosaic.storage.errors import AccessError

DEFAULT_PORT = 5555
LAST_PORT = 65535
_PORTS = re.compile(r"(.*):([0-9]{1,5})-([0-9]{1,5})", re.DOTALL)


def server_address(location: str) -> str:
    """``tcp://host:port`` of a server in one spelling, from that or from ``tcp://host:port/name``; else AccessError.

    Other transports than TCP are left as they are.
    """
    text = str(location).strip()
    if "://" not in text:
        raise AccessError("an address of a server is written tcp://HOST:PORT", location=text)
    if not text.lower().startswith("tcp://"):
        return text
    host, port = _host_and_port(text)
    return f"tcp://{f'[{host}]' if ':' in host else host}:{port}"


def is_local(address: str) -> bool:
    """Whether only programs on this machine can reach what is bound to an address: loopback, or no network at all."""
    if address.startswith(("ipc://", "inproc://")):
        return True
    host, _ = _host_and_port(addresses_in(address)[0])
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, an interface, `*`: who knows who is there
        return False


def port_range(text: str) -> str:
    """``FIRST-LAST`` in one spelling; AccessError where that is no range of ports."""
    found = re.fullmatch(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*", text, re.ASCII)
    first, last = map(int, found.groups()) if found else (0, 0)
    if not 1 <= first <= last <= LAST_PORT:
        raise AccessError(f"{text[:40]!r} are no ports: write FIRST-LAST, both from 1 to {LAST_PORT}, as in 6000-6063")
    return f"{first}-{last}"


def addresses_in(address: str) -> list[str]:
    """The addresses that ``tcp://HOST:FIRST-LAST`` stands for, in their order; any other address stands for itself."""
    found = _PORTS.fullmatch(address)
    return [f"{found[1]}:{port}" for port in range(int(found[2]), int(found[3]) + 1)] if found else [address]


def _host_and_port(address: str) -> tuple[str, str]:
    text = address[: address.index("://") + 3].lower() + address.split("://", 1)[1]
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise AccessError(f"this is no address ({error}); write tcp://HOST:PORT", location=address) from error
    host, colon, port = parts.netloc.rpartition(":")
    if not colon or "]" in port:  # no port
        host, port = parts.netloc, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]").lower()
    if not host or not (port == "*" or (port.isascii() and port.isdecimal() and int(port) < 65536)):
        raise AccessError("an address of a server is written tcp://HOST:PORT", location=address)
    return host, port
