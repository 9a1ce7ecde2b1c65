"""Containers' networks without an engine: network namespaces, joined by bridges, with names."""

import contextlib
import ipaddress
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_HOSTS = Path("/etc/netns")
_COMMAND_TIMEOUT_S = 30

# COVER... -- SOURCE TARGET... -- COMMAND...: cover directories with empty file systems, mount each
# source at its target, run the command. The mounts are those of the namespace alone.
_MOUNT_AND_RUN = """
set -e
while [ "$1" != -- ]; do mount -t tmpfs octavo-test "$1"; shift; done
shift
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "$(dirname "$2")"; touch "$2"; fi
    mount --bind "$1" "$2"
    shift 2
done
shift
exec "$@"
"""


@dataclass
class Host:
    """A network namespace, as a container has one."""

    name: str
    namespace: str
    addresses: dict[str, str] = field(default_factory=dict)
    """Network → IPv4 address on it."""

    def command(
        self, arguments: Sequence[str], mounts: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return a command that runs the arguments here; mounts are target → source."""
        mounts = mounts or {}
        covers = {_nearest(Path(target)) for target in mounts if not Path(target).exists()}
        pairs = [path for target, source in mounts.items() for path in (source, target)]
        script = ["sh", "-c", _MOUNT_AND_RUN, "sh", *covers, "--", *pairs, "--", *arguments]
        return ["ip", "netns", "exec", self.namespace, *script]


class NetworkLab:
    """Use: `with network_lab() as lab`; everything is gone afterwards."""

    def __init__(self, cleanup: contextlib.ExitStack) -> None:
        self._cleanup = cleanup
        self._prefix = f"octavo{os.getpid()}"
        self._networks: dict[str, ipaddress.IPv4Network] = {}
        self._hosts: list[Host] = []
        self._names: dict[str, dict[str, str]] = {}
        self._switch = self._namespace("switch")

    def add_network(self, name: str) -> None:
        number = len(self._networks)
        self._networks[name] = ipaddress.IPv4Network(f"10.213.{number}.0/24")
        self._names[name] = {}
        run("ip", "-n", self._switch, "link", "add", f"br{number}", "type", "bridge")
        run("ip", "-n", self._switch, "link", "set", f"br{number}", "up")

    def add_host(self, name: str, networks: Mapping[str, Sequence[str]]) -> Host:
        """Add a host; `networks` are those it is on, each with its names there."""
        host = Host(name, self._namespace(str(len(self._hosts))))
        self._hosts.append(host)
        run("ip", "-n", host.namespace, "link", "set", "lo", "up")
        for network, names in networks.items():
            host.addresses[network] = self._plug_in(host, network)
            self._names[network] |= dict.fromkeys(names, host.addresses[network])
        return host

    def write_names(self) -> None:
        """Let every host find those that it shares a network with; after the last `add_host`."""
        for host in self._hosts:
            lines = ["127.0.0.1 localhost"]
            for network in host.addresses:
                lines += [f"{address} {name}" for name, address in self._names[network].items()]
            # `ip netns exec` shows it to the namespace as /etc/hosts.
            folder = _HOSTS / host.namespace
            folder.mkdir(parents=True)
            self._cleanup.callback(shutil.rmtree, folder)
            (folder / "hosts").write_text("\n".join(lines) + "\n")

    def _plug_in(self, host: Host, network: str) -> str:
        number = list(self._networks).index(network)
        port = f"p{self._hosts.index(host)}n{number}"
        pool = self._networks[network]
        address = str(pool[10 + self._hosts.index(host)])
        ends = ("eth" + str(number), "netns", host.namespace)
        run("ip", "-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", *ends)
        run("ip", "-n", self._switch, "link", "set", port, "master", f"br{number}", "up")
        run("ip", "-n", host.namespace, "addr", "add", f"{address}/24", "dev", f"eth{number}")
        run("ip", "-n", host.namespace, "link", "set", f"eth{number}", "up")
        return address

    def _namespace(self, name: str) -> str:
        namespace = f"{self._prefix}-{name}"
        run("ip", "netns", "add", namespace)
        self._cleanup.callback(run, "ip", "netns", "del", namespace)
        return namespace


def _nearest(path: Path) -> str:
    """Return the directory above that exists: what is missing can be made in a cover of it."""
    return str(next(above for above in path.parents if above.exists()))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@contextlib.contextmanager
def network_lab() -> Iterator[NetworkLab]:
    """Yield an empty lab; raises OSError where namespaces cannot be made."""
    with contextlib.ExitStack() as cleanup:
        yield NetworkLab(cleanup)
