"""The flags of the commands that talk to a running server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .flag_types import check_api_keys


def _check_api_key(_: object, key: str | None) -> None:
    # An empty one is what a variable holds that was not set.
    check_api_keys(_, [key] if key else [])


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """Which server, which model, and the key for it."""

    url: str = "http://127.0.0.1:8000"
    """Address of the server: Octavo's, or any other that speaks OpenAI's API."""
    model: str | None = None
    """Name of the model; unset: the first that the server lists."""
    api_key: Annotated[str | None, Parameter(validator=_check_api_key)] = None
    """Key of a server that wants one; OCTAVO_API_KEY keeps it off the list of processes."""
    config: Path | None = None
    """YAML file that gives flags; the command line and the environment go before it."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(ClientSettings):
    """And how to generate."""

    max_tokens: int | None = None
    """Most tokens of an answer; unset: the server's default."""
    temperature: float | None = None
    """0 takes the most likely token each time; unset: the server's default."""

    def sampling(self) -> dict[str, float]:
        """Return the fields of a request's body that were given."""
        given = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        return {name: value for name, value in given.items() if value is not None}
