"""compose.yaml and the Dockerfile, read as Compose and the image builder read them."""

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from tests.file_sizes import ROOT

COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "Dockerfile"
SECRETS_AT = "/run/secrets"


@dataclass(frozen=True)
class Service:
    """A service of the file, and what its image adds."""

    name: str
    section: dict[str, Any]

    @property
    def is_ours(self) -> bool:
        return str(self.section["image"]).startswith("octavo:")

    @property
    def arguments(self) -> list[str]:
        """The process, as the image's entry point and the service's command make it."""
        return [*image_entry_point(), *self.section["command"]]

    @property
    def environment(self) -> dict[str, str]:
        of_service: dict[str, str] = self.section.get("environment", {})
        return image_environment() | of_service

    @property
    def networks(self) -> list[str]:
        return list(self.section["networks"])

    def names_on(self, network: str) -> list[str]:
        """What other containers on the network find it by."""
        networks = self.section["networks"]
        of_network = (networks.get(network) or {}) if isinstance(networks, dict) else {}
        return [self.name, *of_network.get("aliases", [])]

    @property
    def secrets(self) -> list[str]:
        return list(self.section.get("secrets", []))

    @property
    def volumes(self) -> list[tuple[str, str]]:
        """Source and target of each."""
        pairs = [entry.split(":")[:2] for entry in self.section.get("volumes", [])]
        return [(source, target) for source, target in pairs]

    @property
    def dependencies(self) -> dict[str, str]:
        """Service → the condition that it must have met."""
        wanted = self.section.get("depends_on", {})
        return {name: entry["condition"] for name, entry in wanted.items()}

    @property
    def health_check(self) -> list[str] | None:
        """The command that says whether it is healthy; None where there is none."""
        check = self.section["healthcheck"]
        if check.get("disable"):
            return None
        kind, *command = check["test"]
        assert kind == "CMD"
        return list(command)


def services(*profiles: str) -> dict[str, Service]:
    """Return the services that `docker compose --profile ... up` starts."""
    return {
        name: Service(name, section)
        for name, section in compose()["services"].items()
        if not section.get("profiles") or set(section["profiles"]) & set(profiles)
    }


def compose() -> dict[str, Any]:
    """Return the file with its anchors and its variables resolved; these have their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    assert "$" not in re.sub("#.*", "", text)
    return dict(yaml.safe_load(text))


def image_entry_point() -> list[str]:
    match = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert match is not None
    return list(json.loads(match[1]))


def image_environment() -> dict[str, str]:
    """Return what the image sets, but for PATH: there is no image here."""
    match = re.search(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert match is not None
    return {name: value for name, value in re.findall(r"(\w+)=(\S+)", match[1]) if name != "PATH"}
