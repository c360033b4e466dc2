"""Settings: what each may be, where it comes from, and how a wrong one is told."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.config import (
    SETTINGS,
    Address,
    Config,
    DialectPort,
    Limits,
    configure,
    parse_address,
    parse_environment,
    variable,
)
from orchestra.errors import Malformed
from orchestra.statemachine.records import Settings


def test_without_anything_given_it_serves_this_machine_only() -> None:
    configured = configure()
    assert configured.config == Config()
    assert configured.config.listen == Address("127.0.0.1", 8440)
    assert configured.config.listen.loopback
    assert set(configured.origins) == set(SETTINGS)
    assert set(configured.origins.values()) == {"default"}


def test_a_flag_counts_before_the_environment_before_the_file() -> None:
    toml = 'data = "file"\nlog_level = "debug"\nlease_ms = 9000\n[limits]\nidle_ms = 1000\n'
    environment = {
        "ORCHESTRA_DATA": "environment",
        "ORCHESTRA_LOG_LEVEL": "error",
        "ORCHESTRA_SERVER": "http://elsewhere",
        "HOME": "/root",
    }
    configured = configure(
        flags={"data": "flag", "listen": None}, environment=environment, toml=toml
    )
    config = configured.config
    assert (config.data, config.log_level, config.lease_ms) == ("flag", "error", 9_000)
    assert config.limits.idle_ms == 1_000
    assert configured.origins["data"] == "flag --data"
    assert configured.origins["log_level"] == "environment ORCHESTRA_LOG_LEVEL"
    assert configured.origins["lease_ms"] == "file orchestra.toml"
    assert configured.origins["limits.idle_ms"] == "file orchestra.toml"
    assert configured.origins["listen"] == "default"


def test_every_setting_can_come_from_the_environment() -> None:
    texts = {
        "listen": "[::1]:1",
        "local_worker": "3",
        "behind_proxy": "yes",
        "require_token": "1",
        "allowed_hosts": "a.lab, b.lab",
        "dialects": "tango=127.0.0.1:8441,flamenco=127.0.0.1:8080",
        "log_level": "warning",
        "lease_ms": "8000",
        "heartbeat_ms": "1_000",
        "retention_ms": "0",
        "aging_ms": "60_000",
        "reserve_after_ms": "1",
        "losses_max": "1_000",
    }
    for field in attrs.fields(Limits):
        texts[f"limits.{field.name}"] = str(field.default)
    for name in ("data", "tls_cert", "tls_key", "token_file", "folder"):
        texts[name] = f"/srv/{name}"
    assert set(texts) == set(SETTINGS)
    configured = configure(environment={variable(name): text for name, text in texts.items()})
    assert set(configured.origins) == set(SETTINGS)
    assert "default" not in configured.origins.values()
    config = configured.config
    assert config.allowed_hosts == ("a.lab", "b.lab")
    assert config.dialects[1] == DialectPort("flamenco", Address("127.0.0.1", 8080))
    assert config.limits == Limits()
    assert (config.local_worker, config.behind_proxy, config.heartbeat_ms) == (3, True, 1_000)
    kept = (config.retention_ms, config.aging_ms, config.reserve_after_ms, config.losses_max)
    assert kept == (0, 60_000, 1, 1_000)


def test_dialects_come_as_flags_or_as_a_table() -> None:
    flags = configure(flags={"dialects": ["tango=127.0.0.1:8441"]}).config
    table = configure(toml='[dialects]\ntango = "127.0.0.1:8441"\n').config
    assert flags.dialects == table.dialects == (DialectPort("tango", Address("127.0.0.1", 8441)),)


WRONG = [
    # flags, environment, file, where, part of the message
    ({"listen": "8440"}, {}, "", "listen (flag --listen)", "HOST:PORT"),
    ({"local_worker": -1}, {}, "", "local_worker (flag --local-worker)", "from 0 to 10000"),
    ({"liste": "x"}, {}, "", "flag liste", "'listen'"),
    ({}, {"ORCHESTRA_LEASE_MS": "soon"}, "", "lease_ms (environment ORCHESTRA_LEASE_MS)", "whole"),
    ({}, {"ORCHESTRA_LEASE_MS": "1"}, "", "lease_ms (environment ORCHESTRA_LEASE_MS)", "ms"),
    ({}, {"ORCHESTRA_LISTENN": "x"}, "", "environment ORCHESTRA_LISTENN", "'ORCHESTRA_LISTEN'"),
    (
        {},
        {"ORCHESTRA_BEHIND_PROXY": "maybe"},
        "",
        "behind_proxy (environment ORCHESTRA_BEHIND_PROXY)",
        "true",
    ),
    ({}, {}, "data = 3", "data (file orchestra.toml)", "text"),
    ({}, {}, "lease_ms = true", "lease_ms (file orchestra.toml)", "whole"),
    ({}, {}, "lease_ms = 6000.5", "lease_ms (file orchestra.toml)", "whole"),
    ({}, {}, "lease_ms = inf", "lease_ms (file orchestra.toml)", "whole"),
    ({}, {}, "losses_max = 0", "losses_max (file orchestra.toml)", "from 1 to 1000 losses"),
    (
        {},
        {"ORCHESTRA_RETENTION_MS": "1d"},
        "",
        "retention_ms (environment ORCHESTRA_RETENTION_MS)",
        "whole",
    ),
    ({"aging_ms": 86_400_001}, {}, "", "aging_ms (flag --aging-ms)", "ms"),
    ({}, {}, "leasems = 6000", "leasems (file orchestra.toml)", "'lease_ms'"),
    ({}, {}, "[limits]\nidel_ms = 5", "limits.idel_ms (file orchestra.toml)", "'limits.idle_ms'"),
    ({}, {}, "[limits]\nidle_ms = 5", "limits.idle_ms (file orchestra.toml)", "from 50"),
    ({}, {}, "[limit]\nidle_ms = 5", "limit (file orchestra.toml)", "no such setting"),
    ({}, {}, "limits = 5", "limits (file orchestra.toml)", "no such setting"),
    ({}, {}, "data = ", "orchestra.toml", "not valid TOML"),
    ({}, {}, 'data = "a"\ndata = "b"', "orchestra.toml", "not valid TOML"),
    ({}, {}, 'log_level = "loud"', "log_level (file orchestra.toml)", "debug, info"),
    ({}, {}, 'log_level = "debg"', "log_level (file orchestra.toml)", "did you mean 'debug'"),
    (
        {},
        {},
        'allowed_hosts = ["a:1"]',
        "allowed_hosts (file orchestra.toml)",
        "without a port|leave the port",
    ),
    ({}, {}, "allowed_hosts = [3]", "allowed_hosts (file orchestra.toml)", "text"),
    ({}, {}, '[dialects]\n"A B" = "h:1"', "dialects (file orchestra.toml)", "dialect's name"),
    ({}, {}, 'dialects = ["tango"]', "dialects (file orchestra.toml)", "NAME=HOST:PORT"),
    ({"dialects": ["a=h:1", "a=h:2"]}, {}, "", "dialects (flag --dialects)", "twice"),
    ({"dialects": ["a=127.0.0.1:8440"]}, {}, "", "dialects (flag --dialects)", "share one address"),
    ({"tls_cert": "c"}, {}, "", "tls_key (default)", "certificate and its key"),
    ({"tls_key": "k"}, {}, "", "tls_cert (default)", "certificate and its key"),
    ({"heartbeat_ms": 5_000}, {}, "", "heartbeat_ms (flag --heartbeat-ms)", "half of lease_ms"),
    ({"data": "a\0b"}, {}, "", "data (flag --data)", "NUL"),
]


@pytest.mark.parametrize(("flags", "environment", "toml", "where", "part"), WRONG)
def test_a_wrong_setting_is_told_with_its_field_and_origin(
    flags: dict[str, object], environment: dict[str, str], toml: str, where: str, part: str
) -> None:
    with pytest.raises(Malformed, match=part) as caught:
        configure(flags=flags, environment=environment, toml=toml)
    assert caught.value.where == where


@pytest.mark.parametrize("field", attrs.fields(Limits), ids=lambda field: field.name)
def test_every_limit_is_finite(field: attrs.Attribute[int]) -> None:
    for number in (-1, 1 << 62):
        with pytest.raises(Malformed, match="must be from") as caught:
            Limits(**{field.name: number})
        assert caught.value.where == field.name


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:0", True),
        ("127.9.9.9:1", True),
        ("[::1]:65535", True),
        ("localhost:8440", True),
        ("0.0.0.0:8440", False),
        ("[::]:8440", False),
        ("farm.lab:8440", False),
        ("localhost.evil.example:8440", False),
        ("192.168.1.1:8440", False),
    ],
)
def test_an_address_knows_whether_others_reach_it(text: str, loopback: bool) -> None:
    address = parse_address(text)
    assert address.loopback is loopback
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":80",
        "a:",
        "a:b",
        "a:65536",
        "a:-1",
        "a:1:2",
        "::1:80",
        "[::1]",
        "[x]:1",
        "a b:1",
        "a:\u0661",
        "-a:1",
        "http://a:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address(text)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
def test_other_variables_are_passed_over(environment: dict[str, str]) -> None:
    named = {f"X{name}": text for name, text in environment.items()}
    assert parse_environment(named) == {}


def test_variables_of_clients_and_attempts_are_passed_over() -> None:
    names = ("SERVER", "TOKEN", "TASK_ID", "ATTEMPT_ID", "HYPOTHESIS", "REQUIRE", "JOB_ID")
    assert parse_environment({f"ORCHESTRA_{name}": "x" for name in names}) == {}


def test_the_token_file_stands_beside_the_database_unless_named() -> None:
    assert Config(data="/srv/farm.db").token_path == "/srv/farm.db.token"
    assert Config(data="/srv/farm.db", token_file="/etc/t").token_path == "/etc/t"
    assert Config().token_path == ""


PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
TOLD = {
    "None": "none",
    "": "none",
    "()": "none",
    "True": "true",
    "False": "false",
}


def told_default(name: str) -> str:
    """How the page tells a default."""
    kind, _, field = name.rpartition(".")
    default = getattr(Config().limits if kind else Config(), field)
    if name == "local_worker":
        return "auto"
    if default is None:
        return "as set last"
    return TOLD.get(str(default), str(default))


def test_the_page_has_every_setting_with_its_default() -> None:
    rows = re.findall(
        r"^\| `([a-z_.]+)` \| `?([^`|]+?)`? \| .+ \|$", PAGE.read_text(), re.MULTILINE
    )
    assert dict(rows) == {name: told_default(name) for name in SETTINGS}


def test_what_the_store_keeps_stands_at_first_as_the_page_says() -> None:
    at_first = re.findall(r"^\| `([a-z_]+)` .* At first (\d+)", PAGE.read_text(), re.MULTILINE)
    kept = Settings()
    assert len(at_first) == 4
    assert all(getattr(kept, name) == int(number) for name, number in at_first)


def test_the_example_of_the_page_is_taken() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    config = configure(toml=example).config
    assert (config.losses_max, config.limits.connections_max) == (5, 4_000)
