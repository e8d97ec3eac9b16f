"""The OpenAPI 3.1 document, generated from the table of operations."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from hub.doors.operations import Answer, Operation
from protocol.message import Document
from protocol.problems import CATALOGUE, MEDIA_TYPE

_REF = "#/components/schemas/{name}"
_END = re.compile(r"\$\(\?!\\n\)$")


def _models(operations: Sequence[Operation]) -> list[Any]:
    found: dict[Any, None] = {}
    for operation in operations:
        for answer in operation.answers.values():
            for model in (answer.model, *answer.models.values()):
                if model is not None:
                    found[model] = None
        for model in operation.body.content.values() if operation.body else ():
            if model is not None:
                found[model] = None
        if operation.query is not None:
            found[operation.query] = None
        for model in operation.path_parameters.values():
            found[model] = None
    return list(found)


def _portable(schema: Any) -> Any:
    """JSON Schema's `$` already means the end of the text; drop what Python needs to mean the same."""
    if isinstance(schema, dict):
        return {
            key: _END.sub("$", value) if key == "pattern" and isinstance(value, str) else _portable(value)
            for key, value in schema.items()
        }
    return [_portable(item) for item in schema] if isinstance(schema, list) else schema


_PROBLEM = {
    "type": "object",
    "description": "A problem (RFC 9457)",
    "required": ["type", "title", "status", "code", "fault", "retryable"],
    "properties": {
        "type": {"type": "string", "description": "Explains this kind of problem, relative to the hub"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "enum": sorted(CATALOGUE), "description": "Stable; switch on this"},
        "fault": {"type": "string", "enum": ["caller", "hub", "recipient"]},
        "retryable": {"type": "boolean", "description": "Whether the same request may succeed later"},
        "detail": {"type": "string"},
        "fields": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
        "retry_after": {
            "type": "number",
            "description": "Seconds, where no header can say it: in the answer to a batch and on a stream",
        },
        "receipt": {"description": "Receipt of the rejection, when the sender was authenticated"},
    },
}


def describe(operations: Sequence[Operation], title: str) -> dict[str, Any]:
    """The OpenAPI document of `operations`."""
    models = [*_models(operations), Document]  # which no body is as it stands: it is the payload of a JWS
    schemas, components = msgspec.json.schema_components(models, ref_template=_REF)
    by_model = dict(zip(models, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, by_model, components
        )
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": importlib.metadata.version("lienthong"),
            "description": "Signed documents between public agencies. Errors are RFC 9457 problems.",
        },
        "paths": paths,
        "components": {
            "schemas": components | {"Problem": _PROBLEM},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A token made by the hub"},
                "certificate": {"type": "mutualTLS", "description": "A client certificate known to the hub"},
            },
        },
        "security": [{"token": []}, {"certificate": []}],
    }
    result: dict[str, Any] = _portable(document)
    return result


def _operation(operation: Operation, schemas: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": operation.handler.__name__,
        "tags": [operation.tag],
        "parameters": _parameters(operation, schemas, components),
        "responses": {str(status): _answer(answer, schemas) for status, answer in operation.answers.items()},
    }
    if operation.description:
        described["description"] = operation.description
    if operation.open:
        described["security"] = []
    refusals = {400, 405, 408, 500, 503, *operation.problems} | (set() if operation.open else {401, 403})
    for status in sorted(refusals - set(operation.answers)):
        titles = [f"`{kind.code}`: {kind.title}" for kind in CATALOGUE.values() if kind.status == status]
        described["responses"][str(status)] = {
            "description": "; ".join(titles) or "Refused",
            "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "description": operation.body.description,
            "content": {
                media_type: {"schema": schemas[model] if model is not None else _bytes(media_type)}
                for media_type, model in operation.body.content.items()
            },
        }
    return described


def _bytes(media_type: str) -> dict[str, str]:
    return (
        {"type": "string"} if media_type != "application/octet-stream" else {"type": "string", "format": "binary"}
    )


def _answer(answer: Answer, schemas: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        described["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    if answer.media_types:
        described["content"] = {
            media_type: {"schema": schemas[model] if model is not None else _bytes(media_type)}
            for media_type in answer.media_types
            for model in [answer.models.get(media_type, answer.model)]
        }
    return described


def _parameters(operation: Operation, schemas: dict[Any, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    for name, model in operation.path_parameters.items():
        parameters.append({"name": name, "in": "path", "required": True, "schema": schemas[model]})
    if operation.query is not None:
        struct = components.pop(operation.query.__name__, None) or schemas[operation.query]
        for name, schema in struct["properties"].items():
            parameters.append({"name": name, "in": "query", "required": False, "schema": schema})
    for name, text in operation.headers.items():
        parameters.append(
            {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        )
    return parameters
