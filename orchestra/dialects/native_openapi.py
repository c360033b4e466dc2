"""The published description of the native dialect: OpenAPI 3.1, from the very types that validate the requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from orchestra.dialects.native_calls import (
    BodyInput,
    JsonOutput,
    LogOutput,
    NoOutput,
    Operation,
    QueryInput,
)
from orchestra.dialects.native_problems import MEDIA_TYPE, Problem
from orchestra.dialects.native_table import (
    EVENT_STREAM,
    HEALTH,
    OPERATIONS,
    PREFIX,
    WATCHES,
    Health,
    Watchable,
)
from orchestra.dialects.native_wire import FIELD_WORDS
from orchestra.dialects.wire import Role

VERSION = "1"
_REF = "#/components/schemas/{name}"

_ABOUT = """Coordinates projects, jobs, tasks and workers.

Times are milliseconds since the epoch (UTC), durations milliseconds. Nothing is answered before it is durable. A command may carry an
`Idempotency-Key`: repeated with the same key and content it is done once and answered as the first time, so it is safe to
repeat whenever an answer did not come. Every refusal is a problem (RFC 9457) that says what is wrong, where, and what to do.
The same operations go over one websocket at `channel`, by name and number."""

_REFUSALS = {
    "400": "Malformed: the problem names the field.",
    "401": "No valid token came.",
    "403": "The token does not open this.",
    "404": "There is no such thing.",
    "405": "Another method is needed; Allow lists them.",
    "408": "The body came too slowly.",
    "409": "Its state does not allow this.",
    "413": "The body is too long.",
    "415": "The body is not JSON.",
    "429": "A bound is reached; Retry-After says when to come again.",
    "500": "A bug; it is unknown whether it was done.",
    "503": "Not done, or unknown whether done: repeat with the same key.",
    "507": "The store is full; nothing was done.",
}
_READING = frozenset({"405", "408", "409", "413", "415", "507"})
"""Refusals that a request which only reads never meets."""


def _schemas() -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """The schema of each wire type, and the components that they refer to."""
    wanted: list[Any] = [Problem, Health]
    for operation in OPERATIONS:
        if isinstance(operation.input, BodyInput):
            wanted.append(operation.input.body.form.struct)
        if isinstance(operation.output, JsonOutput):
            wanted.append(operation.output.codec.form.struct)
    wanted += [taken.query.struct for taken in _query_inputs()]
    wanted = list(dict.fromkeys(wanted))
    schemas, components = msgspec.json.schema_components(wanted, ref_template=_REF)
    by_type = dict(zip(wanted, schemas, strict=True))
    for taken in _query_inputs():
        # Parameters are listed one by one, so their collection is no component.
        components.pop(taken.query.struct.__name__, None)
    return by_type, {name: _readable(schema) for name, schema in components.items()}


def _query_inputs() -> list[QueryInput]:
    inputs = [operation.input for operation in OPERATIONS]
    inputs += [watch.input for watch in WATCHES]
    return [taken for taken in inputs if isinstance(taken, QueryInput)]


def _readable(schema: Any) -> Any:
    """Double back-quotes are Python's; the document's texts are Markdown. Tuples are a default's, and JSON has arrays."""
    if isinstance(schema, dict):
        members = cast("dict[str, Any]", schema)
        return {
            name: re.sub(r"``(.+?)``", r"`\1`", value)
            if name == "description"
            else _readable(value)
            for name, value in members.items()
        }
    if isinstance(schema, (list, tuple)):
        return [_readable(item) for item in cast("Sequence[Any]", schema)]
    return schema


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="Problem")}
    return {"description": text, "content": {MEDIA_TYPE: {"schema": schema}}}


def _refusals(*, reading: bool) -> dict[str, Any]:
    return {
        status: {"$ref": f"#/components/responses/{status}"}
        for status in _REFUSALS
        if not (reading and status in _READING)
    }


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "maxLength": 200},
            **({"description": FIELD_WORDS[name]} if name in FIELD_WORDS else {}),
        }
        for name in re.findall(r"\{([a-z_]+)\}", path)
    ]


def _query_parameters(taken: QueryInput) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([taken.query.struct], ref_template=_REF)
    schema = _readable(components[taken.query.struct.__name__])
    required = schema.get("required", [])
    found: list[dict[str, Any]] = []
    for name, told in schema["properties"].items():
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": name in required}
        if "description" in told:
            parameter["description"] = told.pop("description")
        if told.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        parameter["schema"] = told
        found.append(parameter)
    return found


def _success(operation: Operation, by_type: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    output = operation.output
    if isinstance(output, NoOutput):
        return {"204": {"description": "Done."}}
    if isinstance(output, LogOutput):
        size = {"description": "Bytes stored in all.", "schema": {"type": "integer"}}
        content = {"text/plain": {"schema": {"type": "string"}}}
        told = {"description": "The output.", "headers": {"Log-Size": size}, "content": content}
        return {"200": told}
    if not isinstance(output, JsonOutput):
        raise TypeError(f"{operation.name} has an output that the document can not describe")
    content = {"application/json": {"schema": by_type[output.codec.form.struct]}}
    found = "Done." if operation.changes else "Found."
    done: dict[str, Any] = {"200": {"description": found, "content": content}}
    if output.located:
        location = {"description": "Where it is.", "schema": {"type": "string"}}
        done["201"] = {
            "description": "Accepted, and durable.",
            "headers": {"Location": location},
            "content": content,
        }
        done["200"]["description"] = "Accepted before, under the same key."
    return done


def _described(operation: Operation, by_type: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    parameters = _path_parameters(operation.path)
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs the role {operation.role.value}.",
        "tags": [operation.path.removeprefix(PREFIX).split("/")[1]],
    }
    taken = operation.input
    if isinstance(taken, QueryInput):
        parameters += _query_parameters(taken)
    elif isinstance(taken, BodyInput):
        if taken.keyed:
            parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
        schema = by_type[taken.body.form.struct]
        content = {"application/json": {"schema": schema}}
        told["requestBody"] = {"required": taken.needs_body, "content": content}
    told["parameters"] = parameters
    told["responses"] = {
        **_success(operation, by_type),
        **_refusals(reading=not operation.changes),
    }
    return told


def _described_watch(watch: Watchable) -> dict[str, Any]:
    content = {EVENT_STREAM: {"schema": {"type": "string"}}}
    return {
        "operationId": watch.name,
        "summary": watch.summary,
        "description": f"Server-sent events; a comment now and then keeps the line alive. Needs the role {watch.role.value}.",
        "tags": [watch.path.removeprefix(PREFIX).split("/")[1]],
        "parameters": _path_parameters(watch.path) + _query_parameters(watch.input),
        "responses": {
            "200": {"description": "Events as they come.", "content": content},
            **_refusals(reading=True),
        },
    }


def _open(operation_id: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A route that needs no token."""
    content = {"application/json": {"schema": schema}}
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["server"],
        "security": [],
        "responses": {
            "200": {"description": "Found.", "content": content},
            **_refusals(reading=True),
        },
    }


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the native dialect, as a JSON object."""
    by_type, components = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        described = _described(operation, by_type)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    for watch in WATCHES:
        paths.setdefault(watch.path, {})["get"] = _described_watch(watch)
    paths[HEALTH.path] = {"get": _open(HEALTH.name, HEALTH.summary, by_type[Health])}
    own = _open("OpenApi", "The published description of this interface", {"type": "object"})
    paths[f"{PREFIX}/openapi.json"] = {"get": own}
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Up to 200 visible ASCII characters; the same key makes a repetition harmless for a day.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
    }
    bearer = {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of the server, with one of the roles "
        + ", ".join(role.value for role in Role if role is not Role.ANYONE)
        + ". Not asked for on a loopback address unless the server is set so.",
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "orchestra", "version": VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "parameters": {"IdempotencyKey": key},
            "responses": {status: _problem(text) for status, text in _REFUSALS.items()},
            "securitySchemes": {"token": bearer},
        },
    }
