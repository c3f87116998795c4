"""data-plane.json and data-plane.md: the route table, the headers, the errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from docs.build.markdown import code, page, table, words
from gateway.api.data.openai import REQUIRED, error_body
from gateway.api.data.routes import ROUTES, openapi_paths
from gateway.errors import (
    ForbiddenError,
    GatewayError,
    LimitExceededError,
    LimitUnavailableError,
    MethodNotAllowedError,
)
from gateway.version import VERSION
from policies.facts import Action

REQUEST_HEADERS = {
    "authorization": "`Bearer <access token>`; its audience is `<server.url>/v1`. Required.",
    "content-type": "`application/json`.",
    "content-encoding": "None but `identity`; anything else is answered 415.",
    "x-request-id": "8 to 64 of `A-Z a-z 0-9 . _ -`: kept and answered; else one is made.",
    "traceparent": "W3C Trace Context: its trace id goes into the audit entry.",
    "x-request-timeout-ms": "How long the answer may take in all, from the request's arrival: a positive whole"
    " number, else 400. It only shortens what the gateway allows; then 504.",
    "grpc-timeout": "The same in gRPC's form: 1 to 8 digits and `H`, `M`, `S`, `m`, `u` or `n` (`1500m`). Of both"
    " headers the shorter counts.",
    "x-orgate-document": "What the caller is typing in: 1 to 128 visible ASCII characters of its choice, else 400."
    " Where the organization supersedes, a newer completion of the same member, client and document ends the"
    " older one with `superseded`. Neither logged nor stored.",
    "x-orgate-lane": "`completion`, `chat` or `agent`, else 400: the lane to wait in when the upstream is full."
    " Completions wait in the first, chat and embeddings in the second, chat with `tools` in the third; asking can"
    " only lower.",
    "vscode-sessionid": "Stands in for a missing `x-orgate-document`, together with `openai-intent`:"
    " GitHub Copilot's clients send both.",
    "x-orgate-client": "The program as `name/version`: at most 64 letters, digits and `._+-`. Else"
    " `editor-plugin-version`, `editor-version`, or the first product of `user-agent` says it. For holds, metrics"
    " and the audit entry.",
}
RESPONSE_HEADERS = {
    "x-request-id": "Every answer. The same id is in the audit entry.",
    "x-orgate-model": "The model that served, as the upstream calls it.",
    "x-orgate-upstream": "The upstream's name.",
    "x-orgate-overhead-ms": "Milliseconds spent in the gateway until the answer's head.",
    "server-timing": "Milliseconds until the answer's head (W3C Server Timing): `gateway` its own, `queue` until"
    " it was the request's turn at the upstream, `upstream` until its first byte.",
    "x-ratelimit-limit-requests": "The strictest limit of requests: its amount. Also `-tokens`, `-input-tokens`,"
    " `-output-tokens`, `-bytes`, `-spend` (dollars) and `-concurrency`. On answers and on 429.",
    "x-ratelimit-remaining-requests": "What is left of it, as far as this worker knows; of a busy one in steps,"
    " and never more. The same units.",
    "x-ratelimit-reset-requests": "In how long it is full again or, of a budget, begins anew: e.g. `1000ms`. The"
    " same units without `-concurrency`.",
    "x-orgate-budget": "Once a budget has reached the first of its thresholds (`--notify-at`): its name, the"
    " percent used and the seconds until it begins anew: `monthly;used=83;reset=86400` (RFC 9651),"
    ' or `"9lives";used=…`: a name that begins with a digit is a string. One for each.',
    "retry-after": "Seconds, rounded up. With 429 and 503; a 429 without it is not helped by waiting.",
    "x-should-retry": "`false`, with 409, and with 429 when waiting does not help or takes longer than a minute:"
    " OpenAI's SDKs then do not send it again by themselves.",
    "www-authenticate": '`Bearer error="invalid_token"`, with 401: renew the token and try again.',
    "allow": "With 405: the method that the path takes.",
    "cache-control": "`no-store`.",
}
FIELDS = (
    ("`model`", "all three", "The alias, a text. Required."),
    ("`prompt`", "completions", "Required. A text, an array, or null."),
    ("`suffix`", "completions", "A text: what stands after the cursor (fill in the middle)."),
    ("`messages`", "chat", "Required. An array of objects, not empty."),
    ("`input`", "embeddings", "Required. A text or an array."),
    ("`stream`", "completions, chat", "true: an event stream, as the model makes it."),
    (
        "`stream_options.include_usage`",
        "completions, chat",
        "The gateway always asks the model for usage, and leaves out of the answer what the caller did not ask"
        " for.",
    ),
    (
        "`max_completion_tokens`, `max_tokens`, `n_predict`",
        "completions, chat",
        "1 to 10000000. How long an answer may be; of several, token limits reserve the largest. `n_predict` is"
        " llama.cpp's.",
    ),
    ("`n`, `best_of`", "completions, chat", "1 to 10000000. The larger multiplies what is reserved."),
)


def errors(kind: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    for one in kind.__subclasses__():
        if one.__module__ == "gateway.errors":
            yield one
            yield from errors(one)


def openapi() -> str:
    """The route table's own paths, with bodies, headers and errors put beside them."""
    paths: dict[str, Any] = {}
    for path, methods in openapi_paths().items():
        route = next(route for route in ROUTES if route.path == path)
        operation = {**methods[route.method.lower()], "responses": _responses()}
        if route.method == "POST":
            operation["requestBody"] = {"required": True, "content": _json(_body(route.task))}
        paths[path] = {route.method.lower(): operation}
        if route.below:
            name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            one = {**operation, "operationId": f"{operation['operationId']}.one", "parameters": [name]}
            paths[path + "/{model}"] = {route.method.lower(): one}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Orgate data plane", "version": VERSION},
        "components": {
            "securitySchemes": {"accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": {"Error": _ERROR},
        },
        "paths": paths,
    }
    return json.dumps(document, indent=1) + "\n"


_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"]},
                "code": _TEXT,
                "rule": _TEXT,
                "limit": _TEXT,
                "scope": _TEXT,
                "owner": {"enum": ["organization", "platform"]},
                "resets_at": {"type": "string", "format": "date-time"},
            },
        }
    },
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _body(task: Action) -> dict[str, Any]:
    """What must be there. Every other field goes to the model as it came."""
    required = REQUIRED[task]
    return {"type": "object", "required": ["model", required], "properties": {"model": _TEXT, required: {}}}


def _responses() -> dict[str, Any]:
    headers = {name: {"description": text, "schema": _TEXT} for name, text in RESPONSE_HEADERS.items()}
    answers: dict[str, Any] = {
        "200": {"description": "The model's answer, or its event stream.", "headers": headers}
    }
    for one in sorted(errors(), key=lambda one: (one.status, one.code)):
        said = answers.setdefault(
            str(one.status), {"description": "", "content": _json({"$ref": "#/components/schemas/Error"})}
        )
        said["description"] = " ".join(filter(None, (said["description"], f"{one.code}: {words(one)}")))
    return answers


def render() -> str:
    routes = [
        (code(f"{route.method} {route.path}" + ("[/{model}]" if route.below else "")), route.summary)
        for route in ROUTES
    ]
    refusals = sorted(
        {(str(one.status), code(one.code), _type(one), words(one)) for one in errors()}
        | {
            (
                "500",
                code(GatewayError.code),
                _type(GatewayError),
                "A fault of the gateway; its log has the request's id.",
            )
        }
    )
    return page(
        "Data plane",
        "`gateway/api/data/` and `gateway/errors.py`",
        "Default: `https://127.0.0.1:8443`, HTTP/2 or HTTP/1.1 over TLS 1.3. OpenAI's dialect: any OpenAI"
        " client works with `base_url` = `<server.url>/v1` and a token from `orgate token`."
        " [data-plane.json](data-plane.json) lists the routes for machines.",
        table(("request", "what it does"), routes),
        "The organization comes from the token, never from the URL or a header. `GET /livez` and `GET /readyz`"
        " need no token.",
        "## Body",
        "JSON, at most `server.max_body_bytes`. What the gateway reads is checked; every other field goes to"
        " the model as it came.",
        table(("field", "of", "meaning"), FIELDS),
        "## Request headers",
        table(("header", "meaning"), [(code(name), text) for name, text in REQUEST_HEADERS.items()]),
        "## Response headers",
        table(("header", "meaning"), [(code(name), text) for name, text in RESPONSE_HEADERS.items()]),
        "## Errors",
        'OpenAI\'s error object: `{"error": {"message", "type", "param", "code"}}`. A refusal by a rule also'
        " has `rule`, one by a limit `limit`, `scope` and `owner` (`organization` or `platform`: who set it),"
        " and of a budget `resets_at` (RFC 3339).",
        table(("status", "code", "type", "when"), refusals),
        "When the model itself refuses a request with 400, 404, 413 or 422, its own status and body are passed"
        " on. Its 429 and 503 are answered 503 `upstream_busy`. A stream that breaks after its head ends with"
        " one event that has the `error` object, and without `[DONE]`.",
    )


def _type(kind: type[GatewayError]) -> str:
    """OpenAI's `type` of an error, from the dialect itself."""
    if issubclass(kind, ForbiddenError):
        error: GatewayError = kind("", rule="")
    elif issubclass(kind, LimitExceededError | LimitUnavailableError):
        error = kind("", limit="", scope="", retry_after_s=1)
    elif issubclass(kind, MethodNotAllowedError):
        error = kind("")
    else:
        error = kind("")
    return code(json.loads(error_body(error))["error"]["type"])
