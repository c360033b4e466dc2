from __future__ import annotations

import pytest

from orchestra.testing.check_transport import CHECKS, WIRE_CHECKS
from orchestra.testing.transport_bench import Check
from tests.transports.far_ends import SERVES

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("transport", SERVES)
async def test_transport_keeps_the_contract(transport: str, check: Check) -> None:
    await check(SERVES[transport])


@pytest.mark.parametrize("check", WIRE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_wire_keeps_the_contract(transport: str, check: Check) -> None:
    await check(SERVES[transport])
