"""What a setting's text or TOML value means. Each reader raises `ValueError` with what it expects."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import cast

import attrs

PORT_MAX = 65_535
TEXT_CHARS_MAX = 4_096
"""The longest path that Linux takes."""

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?\.?")
_DIALECT = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@attrs.frozen(slots=True)
class Address:
    """Where to listen: a host name or IP address, and a TCP port (0 lets the system choose a free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than ``localhost`` is taken to be reachable."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@attrs.frozen(slots=True)
class DialectPort:
    """
    A dialect that is switched on: below ``/NAME/`` of the main port and, with an address, at the root of a port of its own.

    ``options`` are the further keys of its table ``[dialects.NAME]``, which the dialect itself reads.
    """

    name: str
    address: Address | None = None
    options: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False)


def parse_address(text: str) -> Address:
    """
    Read ``HOST:PORT`` (IPv6 addresses in brackets).

    Raises:
        ValueError: It is something else; the message says what is expected.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
        raise ValueError(f"{text!r} is not HOST:PORT with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise ValueError(f"{host!r} is not an IPv6 address in brackets") from None
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name or address (IPv6 goes in brackets)")
    return Address(host, int(port))


def read_text(raw: object) -> str:
    """A text of one line or path."""
    if not isinstance(raw, str):
        raise ValueError(f"must be a text, not {raw!r}")
    if "\0" in raw or len(raw) > TEXT_CHARS_MAX:
        raise ValueError("must be at most 4096 characters without NUL")
    return raw


def read_switch(raw: object) -> bool:
    """True or false; in a variable also 1, yes, on and their opposites."""
    if isinstance(raw, bool):
        return raw
    word = raw.lower() if isinstance(raw, str) else ""
    if word not in _TRUE | _FALSE:
        raise ValueError(f"must be true or false, not {raw!r}")
    return word in _TRUE


def read_whole(raw: object) -> int:
    """A whole number; underscores may group its digits."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    digits = raw.replace("_", "") if isinstance(raw, str) else ""
    if not re.fullmatch(r"-?[0-9]{1,18}", digits):
        raise ValueError(f"must be a whole number, not {raw!r}")
    return int(digits)


def read_slots(raw: object) -> int | None:
    """A number of slots, or ``auto`` for None."""
    return None if raw is None or raw == "auto" else read_whole(raw)


def read_whole_or_none(raw: object) -> int | None:
    """A whole number, or None where the setting is not given."""
    return None if raw is None else read_whole(raw)


def read_address(raw: object) -> Address:
    """An `Address`, or ``HOST:PORT``."""
    return raw if isinstance(raw, Address) else parse_address(read_text(raw))


def _items(raw: object) -> Iterable[object]:
    if isinstance(raw, str):
        return [item.strip() for item in raw.split(",") if item.strip()]
    if isinstance(raw, list | tuple):
        return cast("Iterable[object]", raw)
    raise ValueError(f"must be a list, not {raw!r}")


def read_hosts(raw: object) -> tuple[str, ...]:
    """Host names without ports: a list, or separated by commas."""
    hosts = tuple(read_text(item).lower() for item in _items(raw))
    for host in hosts:
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not _HOST.fullmatch(bare) and not _is_address(bare):
            raise ValueError(f"{host!r} is not a host name (leave the port out)")
    return hosts


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def read_dialects(raw: object) -> tuple[DialectPort, ...]:
    """A table from name to ``HOST:PORT`` or to a table of options, or a list of ``NAME=HOST:PORT``."""
    pairs: list[tuple[str, object]] = []
    if isinstance(raw, Mapping):
        pairs.extend(cast("Mapping[str, object]", raw).items())
    else:
        for item in _items(raw):
            if isinstance(item, DialectPort):
                pairs.append((item.name, item))
                continue
            name, equals, address = read_text(item).partition("=")
            if not equals:
                raise ValueError(f"{item!r} is not NAME=HOST:PORT")
            pairs.append((name.strip(), address.strip()))
    ports = tuple(_read_dialect(name, given) for name, given in pairs)
    for port in ports:
        if not _DIALECT.fullmatch(port.name):
            raise ValueError(f"{port.name!r} is not a dialect's name (small letters, digits, -)")
    if len({port.name for port in ports}) < len(ports):
        raise ValueError("names a dialect twice")
    return ports


def _read_dialect(name: str, given: object) -> DialectPort:
    if isinstance(given, DialectPort):
        return given
    if not isinstance(given, Mapping):
        return DialectPort(name, read_address(given))
    options = dict(cast("Mapping[str, object]", given))
    listen = options.pop("listen", None)
    return DialectPort(name, None if listen is None else read_address(listen), options)


def join_dialects(
    first: Iterable[DialectPort], second: Iterable[DialectPort]
) -> tuple[DialectPort, ...]:
    """Both, by name: an address and options of ``first`` count before those of ``second``."""
    joined = {port.name: port for port in second}
    for port in first:
        other = joined.get(port.name, port)
        options = {**other.options, **port.options}
        joined[port.name] = DialectPort(port.name, port.address or other.address, options)
    return tuple(joined.values())


def suggest(word: str, words: Iterable[str]) -> str:
    """A question after the nearest known word, or nothing."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean {close[0]!r}?" if close else ""
