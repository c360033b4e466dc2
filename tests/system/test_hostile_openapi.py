"""An outside opinion: schemathesis reads the published document and tries it on a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import httpx
import pytest

from tests.system.farm import Farm, open_farm

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
STREAMS = "stream|orders|backup"
"""Streams have no end; a backup goes to whatever path is asked for."""

RUN_S_MAX = 300


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def tried(
    farm: Farm, document: Path, *words: str, examples: int
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    argv += ["run", str(document), "--url", farm.url(), "--checks", ",".join(CHECKS)]
    argv += ["--phases", "coverage,fuzzing", "--seed", "1", "--max-examples", str(examples)]
    return await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [*argv, "--generation-database", "none", *words],
            cwd=farm.folder,
            capture_output=True,
            text=True,
            timeout=RUN_S_MAX,
            check=False,
        )
    )


async def test_the_server_does_as_its_document_says(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require(modules=("schemathesis",), hint="pip install orchestra-coordinator[test]")
    async with open_farm(tmp_path) as farm:
        server = await farm.serve()
        async with httpx.AsyncClient(base_url=farm.url()) as http:
            told = (await http.get("/api/v1/openapi.json")).json()
        document = tmp_path / "openapi.json"
        document.write_text(json.dumps(told))
        done = await tried(farm, document, "--exclude-path-regex", STREAMS, examples=10)
        assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
        server.check()
        # The control: a document that promises something else is found out.
        health = told["paths"]["/api/v1/health"]["get"]["responses"]["200"]
        health["content"]["application/json"]["schema"] = {"type": "integer"}
        document.write_text(json.dumps(told))
        done = await tried(farm, document, "--include-path", "/api/v1/health", examples=2)
        assert done.returncode == 1, done.stdout[-5_000:] + done.stderr[-2_000:]
        assert "Response violates schema" in done.stdout
