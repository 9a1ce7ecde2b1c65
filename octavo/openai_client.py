"""A client of any OpenAI server: what `octavo chat`, `complete` and `bench serve` share."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from .client_settings import ClientSettings

# A model may think for long before its first token; a connection that is refused is told at once.
TIMEOUT = httpx.Timeout(None, connect=10.0)


class ServerError(Exception):
    """The server cannot be reached, or refuses; the text is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one server-sent event says of the first output."""

    text: str
    finish_reason: str | None
    num_prompt_tokens: int | None
    """Known once the event that carries the usage is here, as the next."""
    num_output_tokens: int | None


class OpenAIClient:
    """A connection to a server. One thread uses it."""

    def __init__(self, settings: ClientSettings) -> None:
        self.url = settings.url
        self._http = httpx.Client(
            base_url=api_url(settings.url), headers=headers(settings.api_key), timeout=TIMEOUT
        )

    def __enter__(self) -> "OpenAIClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def first_model(self) -> str:
        """Return the first model that the server lists."""
        try:
            response = self._http.get("models")
        except httpx.HTTPError as error:
            raise ServerError(unreachable(self.url, error)) from error
        if response.is_error:
            raise ServerError(refusal(response))
        return read_first_model(response, self.url)

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Chunk]:
        """Post `body` to `path`, such as `completions`, and yield the answer as it comes."""
        try:
            with self._http.stream("POST", path, json={**body, "stream": True}) as response:
                if response.is_error:
                    response.read()
                    raise ServerError(refusal(response))
                for line in response.iter_lines():
                    if (chunk := read_chunk(line)) is not None:
                        yield chunk
        except httpx.HTTPError as error:
            raise ServerError(unreachable(self.url, error)) from error
        except UnicodeEncodeError as error:
            # Of bytes on the command line that are no text, Python makes half characters.
            raise ServerError("what is to be sent is no text in UTF-8; check it.") from error


def api_url(url: str) -> str:
    """Return where the API is: the server's address may be given with `/v1` or without.

    Raises ServerError if it is no address.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ServerError(f"--url {url} is no address; give one such as http://127.0.0.1:8000.")
    url = url.rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


def headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def read_first_model(response: httpx.Response, url: str) -> str:
    try:
        return str(response.json()["data"][0]["id"])
    except (ValueError, LookupError, TypeError) as error:
        raise ServerError(
            f"{url} lists no model; give its name with --model, or check --url."
        ) from error


def read_chunk(line: str) -> Chunk | None:
    """Return what a line of a stream of events says, or None for one without content.

    Raises ServerError for an event that reports one.
    """
    data = line.removeprefix("data:").strip()
    if data == line.strip() or data == "[DONE]":
        return None
    try:
        event = json.loads(data)
        if "error" in event:
            raise ServerError(str(event["error"]["message"]))
        choice: dict[str, Any] = next(iter(event.get("choices") or ()), {})
        usage = event.get("usage") or {}
        # Chat completions carry a delta, completions the text itself.
        text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        return Chunk(
            text=text,
            finish_reason=choice.get("finish_reason"),
            num_prompt_tokens=usage.get("prompt_tokens"),
            num_output_tokens=usage.get("completion_tokens"),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ServerError(f"the server sent an event that is not OpenAI's: {data[:200]}") from error


def refusal(response: httpx.Response) -> str:
    """Return the server's own sentence, or its status where it has none."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"{response.url} answered {response.status_code} {response.reason_phrase}."


def unreachable(url: str, error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"no server answers at {url} ({error}). Start one: octavo serve demo"
    if isinstance(error, httpx.RemoteProtocolError | httpx.NetworkError):
        return f"the connection to {url} broke off; see whether the server runs, and try again."
    return f"no answer came from {url}: {error or type(error).__name__}."
