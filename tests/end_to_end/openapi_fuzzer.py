"""Sends a server what schemathesis makes of its OpenAPI document; runs in a process of its own."""

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CALL_TIMEOUT_S = 30
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
VOCAB_SIZE = 49_152
TOKEN_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": VOCAB_SIZE - 1}}
SOME_TOKEN_IDS = TOKEN_IDS | {"minItems": 1, "maxItems": 70}
TEXT = {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True)
class Job:
    """So many cases for one operation."""

    method: str
    path: str
    num_cases: int
    is_valid: bool = True
    """As the document says; else wrong in one place or another."""


def fuzz(base_url: str, document: dict[str, Any], job: Job) -> Counter[int]:
    """Return how often each status was answered; raises AssertionError for a wrong answer.

    The same job makes the same cases each time.
    """
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=base_url)
    # Left to itself it reads the first events of a stream only.
    schema.config.max_stream_events = 1_000_000
    mode = GenerationMode.POSITIVE if job.is_valid else GenerationMode.NEGATIVE
    cases = schema[job.path][job.method].as_strategy(generation_mode=mode)
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=job.num_cases,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def send(case: Case[Any]) -> None:
        if job.is_valid:
            case.body = with_plain_integers(case.body)
        response = case.call(session=session, timeout=CALL_TIMEOUT_S)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        if response.headers["content-type"][0].startswith("text/event-stream"):
            end = response.content[-200:]
            assert end.endswith(b"data: [DONE]\n\n"), f"{case.body!r} ended with {end!r}"

    with requests.Session() as session:
        try:
            send()
        except FailureGroup as failures:
            # It does not go from one process to another.
            raise AssertionError(f"{job}: {failures.exceptions}") from None
    return statuses


def aimed(document: dict[str, Any], model: str) -> dict[str, Any]:
    """Return a document that says more than the server's can: what is served.

    Most cases would fail at the model's name, at an empty prompt or at token ids otherwise, and
    never get to what comes after.
    """
    aimed = copy.deepcopy(document)
    schemas = aimed["components"]["schemas"]
    for name, schema in schemas.items():
        if name.endswith("Body"):
            schema["properties"] |= {"model": {"const": model}}
            # They are ignored, and cost half the time.
            schema["additionalProperties"] = False
    for name in ("ChatBody", "CompletionBody"):
        properties = schemas[name]["properties"]
        del properties["priority"]
        properties["stop_token_ids"] = TOKEN_IDS
        properties["allowed_token_ids"] = SOME_TOKEN_IDS
        properties["logit_bias"]["propertyNames"] = {"pattern": "^[1-9][0-9]{0,3}$"}
        properties["max_tokens"]["maximum"] = 8
        properties["n"]["maximum"] = 4
    prompts = [
        {"type": "array", "items": each, "minItems": 1, "maxItems": 4}
        for each in (TEXT, SOME_TOKEN_IDS)
    ]
    schemas["CompletionBody"]["properties"]["prompt"] = {"anyOf": [TEXT, SOME_TOKEN_IDS, *prompts]}
    schemas["DetokenizeBody"]["properties"]["tokens"] = TOKEN_IDS
    roles = {"enum": ["system", "user", "assistant", "developer"]}
    schemas["Message"] = {
        "type": "object",
        "properties": {"role": roles, "content": {"type": "string"}},
        "required": ["role", "content"],
        "additionalProperties": False,
    }
    return aimed


def with_plain_integers(value: Any) -> Any:
    """Return the JSON with 1 in place of 1.0, which is an integer to JSON schema, but not to us."""
    match value:
        case dict():
            return {key: with_plain_integers(item) for key, item in value.items()}
        case list():
            return [with_plain_integers(item) for item in value]
        case float() if value.is_integer():
            return int(value)
    return value
