"""The settings themselves: each with its unit, its bounds, its default and the reason for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from orchestra.config.readers import (
    Address,
    DialectPort,
    read_address,
    read_dialects,
    read_hosts,
    read_slots,
    read_switch,
    read_text,
    read_whole,
    read_whole_or_none,
    suggest,
)
from orchestra.errors import Malformed

SLOTS_MAX = 10_000
"""More processes than one machine starts; it bounds a slip of the finger."""

CENTURY_MS = 100 * 365 * 86_400_000
"""Longest time that is taken: far from what overflows 63 bits."""

LISTEN = Address("127.0.0.1", 8440)
"""Loopback: who wants others to reach it says so."""

LOG_LEVELS = ("debug", "info", "warning", "error")


def _setting(read: Callable[[object], Any], default: Any, check: Any = None) -> Any:
    return attrs.field(default=default, validator=check, metadata={"read": read})


def _whole(default: int, low: int, high: int, unit: str) -> Any:
    def check(_: object, attribute: attrs.Attribute[int], number: int) -> None:
        if not low <= number <= high:
            told = f"must be from {low} to {high} {unit}, not {number}"
            raise Malformed(told, where=attribute.name)

    return _setting(read_whole, default, check)


def _kept(low: int, high: int, unit: str) -> Any:
    """A number that the store keeps: where it is not given, what was set last counts."""

    def check(_: object, attribute: attrs.Attribute[int | None], number: int | None) -> None:
        if number is not None and not low <= number <= high:
            told = f"must be from {low} to {high} {unit}, not {number}"
            raise Malformed(told, where=attribute.name)

    return _setting(read_whole_or_none, None, check)


def _one_of(words: tuple[str, ...]) -> Any:
    def check(_: object, attribute: attrs.Attribute[str], word: str) -> None:
        if word not in words:
            told = f"must be one of {', '.join(words)}, not {word!r}"
            raise Malformed(told, where=attribute.name, remedy=suggest(word, words))

    return check


@attrs.frozen(slots=True, kw_only=True)
class Limits:
    """What a peer may take. Every bound is finite; times in milliseconds, sizes in bytes."""

    body_bytes_max: int = _whole(33_554_432, 1_024, 1 << 34, "bytes")
    """Longest body of any request; a route may read less. By default what the largest, the submission of a job, reads."""

    header_bytes_max: int = _whole(16_384, 512, 1 << 20, "bytes")
    """Request line and header fields together: four times what browsers and proxies send."""

    header_fields_max: int = _whole(64, 4, 1_000, "fields")
    """Header fields of one request; a browser behind two proxies sends about 25."""

    first_byte_ms: int = _whole(10_000, 50, 600_000, "ms")
    """A new connection says something within this time (with TLS: finishes its handshake, then speaks)."""

    headers_ms: int = _whole(10_000, 50, 600_000, "ms")
    """From the first byte of a request to the end of its header."""

    idle_ms: int = _whole(60_000, 50, 3_600_000, "ms")
    """How long a connection may rest between requests: above the pool lifetime of common clients."""

    body_bytes_per_s: int = _whole(1_024, 1, 1 << 30, "bytes/s")
    """A body comes at least this fast, else it occupies a connection for nothing: a modem does better."""

    body_window_ms: int = _whole(5_000, 50, 600_000, "ms")
    """Rates are judged over this long, so that one lost packet does not end an upload."""

    connections_max: int = _whole(2_000, 1, 1_000_000, "connections")
    """Open connections in all: about 30 KiB each, and below the usual limit of open files."""

    connections_per_address_max: int = _whole(500, 1, 1_000_000, "connections")
    """Open connections of one client address (not counted behind a proxy, where all share one)."""

    requests_per_s: int = _whole(5_000, 1, 10_000_000, "requests/s")
    """Lasting rate of one principal at one address: a little less than one process can answer."""

    requests_burst: int = _whole(10_000, 1, 10_000_000, "requests")
    """Requests that may come at once after a rest."""

    message_bytes_max: int = _whole(1_052_672, 1_024, 1 << 30, "bytes")
    """Longest websocket message: a chunk of 1 MiB and 4 KiB around it."""

    message_ms: int = _whole(60_000, 50, 3_600_000, "ms")
    """From the first to the last frame of one websocket message."""

    fragments_max: int = _whole(64, 1, 100_000, "frames")
    """Frames of one websocket message. Beyond the eighth they must carry 64 bytes each on average."""

    pings_per_s: int = _whole(10, 1, 10_000, "pings/s")
    """Websocket pings that are answered; each costs a frame in return."""

    unsent_bytes_max: int = _whole(1_048_576, 65_536, 1 << 30, "bytes")
    """Bytes that wait for a slow reader of a websocket before it is cut off."""

    stop_ms: int = _whole(10_000, 0, 600_000, "ms")
    """At a stop, answers in the making get this long to finish."""


@attrs.frozen(slots=True, kw_only=True)
class Config:
    """
    Everything that an orchestrator is told before it starts.

    Raises:
        Malformed: A value is out of its bounds, or two do not go together; ``where`` names the field.
    """

    data: str = _setting(read_text, "")
    """Path of the database file; empty keeps everything in memory, and loses it at the end."""

    listen: Address = attrs.field(default=LISTEN, metadata={"read": read_address})
    """Where the native dialect is served."""

    local_worker: int | None = _setting(read_slots, None)
    """Slots of the worker inside the server; None is the number of cpus, 0 switches it off."""

    tls_cert: str = _setting(read_text, "")
    """Path of the certificate chain in PEM; goes with `tls_key`."""

    tls_key: str = _setting(read_text, "")
    """Path of the private key in PEM, without a passphrase."""

    behind_proxy: bool = _setting(read_switch, default=False)
    """A reverse proxy on this machine ends TLS and tells the client's address; tokens are then always required."""

    allowed_hosts: tuple[str, ...] = _setting(read_hosts, ())
    """Further names under which clients may call this server, without port."""

    token_file: str = _setting(read_text, "")
    """Where tokens are kept; empty is the data file's path followed by ``.token``."""

    require_token: bool = _setting(read_switch, default=False)
    """Ask for a token on loopback too. Elsewhere one is always asked for."""

    dialects: tuple[DialectPort, ...] = _setting(read_dialects, ())
    """Dialects that are switched on, below ``/NAME/`` and, with an address, at the root of a port of their own."""

    limits: Limits = attrs.field(factory=Limits)

    lease_ms: int = _whole(6_000, 200, 86_400_000, "ms")
    """A worker that was silent for so long loses its work: three heartbeats."""

    heartbeat_ms: int = _whole(2_000, 50, 3_600_000, "ms")
    """How often a worker speaks."""

    retention_ms: int | None = _kept(0, CENTURY_MS, "ms")
    """A job that has ended leaves memory after so long, and is answered for from the store; in the beginning 10 min."""

    aging_ms: int | None = _kept(0, 86_400_000, "ms")
    """So much waiting is worth one level of priority; in the beginning 10 min. With 0 priorities count for nothing."""

    reserve_after_ms: int | None = _kept(0, CENTURY_MS, "ms")
    """A task that waits so long for room on busy workers gets one reserved; in the beginning 1 min."""

    losses_max: int | None = _kept(1, 1_000, "losses")
    """A task that was lost with its worker so often is taken to be what ends them, and fails; in the beginning 3."""

    folder: str = _setting(read_text, "")
    """Where attempts get their working directories; empty is beside the data file, or a temporary folder."""

    log_level: str = _setting(read_text, "info", _one_of(LOG_LEVELS))

    def __attrs_post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            missing = "tls_key" if self.tls_cert else "tls_cert"
            raise Malformed("TLS needs a certificate and its key", where=missing)
        if self.local_worker is not None and not 0 <= self.local_worker <= SLOTS_MAX:
            told = f"must be from 0 to {SLOTS_MAX} slots, not {self.local_worker}"
            raise Malformed(told, where="local_worker")
        if self.heartbeat_ms * 2 > self.lease_ms:
            told = f"must be at most half of lease_ms ({self.lease_ms}), not {self.heartbeat_ms}"
            raise Malformed(told, where="heartbeat_ms")
        fixed = [address for address in self.addresses if address.port]
        if len(set(fixed)) < len(fixed):
            raise Malformed("two listeners can not share one address", where="dialects")

    @property
    def token_path(self) -> str:
        """Path of the token file, empty when there is neither one named nor a data file to put it beside."""
        return self.token_file or (f"{self.data}.token" if self.data else "")

    @property
    def tls(self) -> bool:
        """Whether this server speaks TLS itself."""
        return bool(self.tls_cert)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Every address that is listened on."""
        return (self.listen, *(port.address for port in self.dialects if port.address))
