"""compose.yaml and the Dockerfile, as far as they can be checked without an engine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from octavo import keys
from octavo.cli import build_app
from tests.deploy.compose_file import (
    COMPOSE,
    DOCKERFILE,
    SECRETS_AT,
    Service,
    compose,
    services,
)
from tests.file_sizes import ROOT

PROFILES = ("cpu", "gpu", "observability")
ALL = services(*PROFILES)
OURS = {name: service for name, service in ALL.items() if service.is_ours}


def tool(name: str, *arguments: str) -> None:
    """Run a checker that came with `make install`; fails with what it says."""
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_fits_its_schema() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_the_dockerfile_has_no_lint() -> None:
    tool("hadolint", str(DOCKERFILE))


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_every_command_is_one_that_octavo_takes(service: Service) -> None:
    program, *arguments = service.arguments
    assert program == "octavo"
    build_app().parse_args(arguments, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_every_health_check_is_one_that_octavo_takes(service: Service) -> None:
    if service.health_check is None:
        assert service.section["restart"] == "no"
        return
    program, *arguments = service.health_check
    assert program == "octavo"
    build_app().parse_args(arguments, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_the_images_health_check_and_stages_exist(service: Service) -> None:
    text = DOCKERFILE.read_text()
    target = service.section["build"]["target"]
    assert re.search(rf"^FROM runtime AS {target}$", text, re.MULTILINE)
    assert service.section["image"] == f"octavo:{target}"


@pytest.mark.parametrize("service", ALL.values(), ids=ALL)
def test_no_container_can_do_more_than_it_needs(service: Service) -> None:
    section = service.section
    assert section["read_only"] and section["init"]
    assert section["cap_drop"] == ["ALL"]
    assert section["security_opt"] == ["no-new-privileges:true"]
    assert section.get("privileged") is None
    assert all(port.startswith("127.0.0.1:") for port in section.get("ports", []))


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_secrets_come_as_files_that_the_service_has(service: Service) -> None:
    read = re.findall(rf"{SECRETS_AT}/([\w.]+)", " ".join(service.arguments))
    assert sorted(read) == sorted(service.secrets)
    assert not any("KEY" in name for name in service.section.get("environment", {}))
    assert not any("--api-key" in argument for argument in service.arguments)


def test_octavo_keys_makes_the_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys.main(tmp_path / "secrets") == 0
    made = {f"./secrets/{path.name}" for path in (tmp_path / "secrets").iterdir()}
    assert {entry["file"] for entry in compose()["secrets"].values()} == made
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_secret_key_is_only_where_it_belongs() -> None:
    owners = {name: service.secrets for name, service in OURS.items() if service.secrets}
    assert owners == {
        "scheduler": ["scheduler.key", "worker.pub"],
        "worker-cpu": ["worker.key", "scheduler.pub"],
        "worker-gpu": ["worker.key", "scheduler.pub"],
    }


@pytest.mark.parametrize("service", ALL.values(), ids=ALL)
def test_what_is_mounted_is_in_the_tree_or_a_volume(service: Service) -> None:
    for source, _ in service.volumes:
        if source.startswith("./"):
            assert (ROOT / source).exists()
        else:
            assert source in compose()["volumes"]


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu"])
def test_kernels_are_compiled_into_a_volume(name: str) -> None:
    """A tmpfs is gone with the container, and Docker lets no library be loaded from one."""
    places = [target for _, target in ALL[name].volumes]
    environment = ALL[name].environment
    assert environment["TRITON_CACHE_DIR"].rpartition("/")[0] in places
    assert f"{environment['XDG_CACHE_HOME']}/octavo" in places


def test_only_the_internal_network_has_scheduler_and_workers() -> None:
    internal = compose()["networks"]["internal"]
    assert internal == {"internal": True}
    for name in ("scheduler", "worker-cpu", "worker-gpu"):
        assert ALL[name].networks == ["internal"]
        assert "ports" not in ALL[name].section


def test_prometheus_scrapes_the_services_where_they_show_their_metrics() -> None:
    scraped = set()
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "compose.yml").read_text())
    for group in config["scrape_configs"][0]["static_configs"]:
        (target,) = group["targets"]
        assert target.split(":")[0] == group["labels"]["process"]
        scraped.add(target)
    shown = {"gateway:8000"}
    for service in services("cpu").values():
        for argument in service.arguments:
            if match := re.fullmatch(r"--metrics-port=(\d+)", argument):
                shown.add(f"{service.arguments[1]}:{match[1]}")
    assert scraped == shown
    networks = set(ALL["prometheus"].networks)
    assert all(networks & set(service.networks) for service in services("cpu").values())


def test_both_scrape_configurations_differ_in_their_targets_only() -> None:
    folder = ROOT / "deploy" / "prometheus"
    ours, single = (
        yaml.safe_load((folder / f"{n}.yml").read_text()) for n in ("compose", "prometheus")
    )
    for config in (ours, single):
        for group in config["scrape_configs"][0]["static_configs"]:
            del group["targets"]
    assert ours == single
