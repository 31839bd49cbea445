"""The OpenAPI 3.1 document, built from the commands' JSON Schemas and the routes for reading."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tasks.command import REQUEST_ID_PATTERN
from tasks.declarations import COMMANDS
from tasks.schemas import answer_schema, argument_schema
from web import problems

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457. An `invalid` or `conflict` answer adds all members of the answer.",
    "properties": {name: {"type": "string"} for name in ("type", "title", "detail")}
    | {"status": {"type": "integer"}, "errors": {"type": "array", "items": {"type": "object"}}},
    "required": ["type", "title", "status", "detail"],
}
_WAITING = {"request_id": {"type": "string"}, "state": {"const": "waiting"}}
_SUBMITTED = {"type": "object", "properties": _WAITING, "required": list(_WAITING)}
_HEADERS = [
    {"name": name, "in": "header", "description": text, "schema": {"type": "string", "pattern": form}}
    for name, form, text in (
        ("Idempotency-Key", REQUEST_ID_PATTERN, "The request id: one key has one effect and one answer."),
        ("Prefer", "^wait=[0-9]{1,2}$", "`wait=N`: answer within N seconds, else 202."),
    )
]


def openapi_document(app: FastAPI) -> dict[str, Any]:
    spec = get_openapi(title="Unwind", version="1", routes=app.routes, description=(app.__doc__ or "").strip())
    components = spec.setdefault("components", {})
    schemas: dict[str, Any] = {"Problem": _PROBLEM, "Answer": answer_schema(), "Submitted": _SUBMITTED}
    for operations in spec["paths"].values():
        for operation in operations.values():
            operation["responses"] = {
                "200": _response_content("application/json", {"type": "object"})
            } | _problem_responses(401, 403, 404, 422, 503)
    for task, declaration in sorted(COMMANDS.items()):
        schema = argument_schema(task, ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[task] = schema
        spec["paths"][f"/v1/commands/{task}"] = {
            "post": {
                "operationId": task,
                "summary": declaration.about,
                "parameters": _HEADERS,
                "requestBody": {"required": True, "content": {"application/json": {"schema": _schema_ref(task)}}},
                "responses": {
                    "200": _response_content(
                        "application/json", _schema_ref("Answer"), "Done, or refused by a rule: see `outcome`."
                    ),
                    "202": _response_content(
                        "application/json", _schema_ref("Submitted"), "Accepted; the answer is at `Location`."
                    ),
                    **_problem_responses(400, 401, 403, 408, 409, 413, 415, 422, 503),
                },
            }
        }
    components["schemas"] = schemas
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "`./run keys create`"}}
    return spec | {"security": [{"key": []}]}


def _schema_ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _response_content(media_type: str, schema: dict[str, Any], description: str = "OK") -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _problem_responses(*statuses: int) -> dict[str, Any]:
    return {
        str(status): _response_content(problems.MEDIA_TYPE, _schema_ref("Problem"), "A problem") for status in statuses
    }
