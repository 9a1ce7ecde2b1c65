"""Compiles kernels ahead of time, for any GPU, on any machine; says what they take of it."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.errors import OutOfResources

from .architecture import Architecture

_WARP_SIZE = 32
# What torch's allocator grants at least, so that loads of 16 bytes are allowed.
_ALIGNMENT = 16
_CUOBJDUMP = str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")


@dataclass(frozen=True, slots=True)
class Specialization:
    """A kernel as one of its launches compiles it.

    Attributes:
        kernel: the function that `triton.jit` made.
        signature: types of the arguments that are no constants: "*bf16", "*fp32", "*i32", "i32",
            "fp32". Pointers are taken to be aligned to 16 bytes; a number that is always divisible
            by 16, as Triton would notice at the launch, is "i32:16".
        constexprs: values of the others.
        architecture: whose launch it is; None where all have the same.
    """

    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, object]
    num_warps: int
    num_stages: int
    architecture: Architecture | None = None

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)

    def is_for(self, capability: int) -> bool:
        """Say whether GPUs of a compute capability have all of its types, and launch it so."""
        takes_fp8 = any("fp8e4nv" in kind for kind in self.signature.values())
        has_types = capability >= (89 if takes_fp8 else 80)
        return has_types and self.architecture in (None, Architecture.of(capability))


def powers_of_2(first: int, last: int) -> Iterator[int]:
    """Yield the sizes that a launch table rounds to, from one power of 2 to another."""
    while first <= last:
        yield first
        first *= 2


@dataclass(frozen=True, slots=True)
class Resources:
    """What a compiled kernel takes of a GPU.

    Attributes:
        registers: of a thread.
        shared_bytes: of a program.
        spilled_bytes: of a thread: its frame in local memory, which has nothing but spills in it.
        has_wgmma: whether products are Hopper's, of a whole warp group.
    """

    registers: int
    shared_bytes: int
    spilled_bytes: int
    has_wgmma: bool


def compile_for(specialization: Specialization, capability: int) -> Resources:
    """Compile for a compute capability, such as 90.

    Raises what Triton and ptxas raise, OutOfResources where the launch on a GPU would, and
    RuntimeError for a kernel that ends in a trap: that is what Triton makes of one that it cannot
    compile, such as one with too much in tensor memory.
    """
    compiled = triton.compile(
        _source(specialization),
        target=GPUTarget("cuda", capability, _WARP_SIZE),
        options={
            "num_warps": specialization.num_warps,
            "num_stages": specialization.num_stages,
        },
    )
    shared_bytes = compiled.metadata.shared
    most_bytes = Architecture.of(capability).shared_kib * 1024
    if shared_bytes > most_bytes:
        raise OutOfResources(shared_bytes, most_bytes, "shared memory")
    if re.search(r"^\s*trap;", compiled.asm["ptx"], re.MULTILINE):
        raise RuntimeError("compiled to a trap")
    registers, spilled_bytes = _usage(compiled.asm["cubin"])
    has_wgmma = "wgmma.mma_async" in compiled.asm["ptx"]
    return Resources(registers, shared_bytes, spilled_bytes, has_wgmma)


def _source(specialization: Specialization) -> ASTSource:
    names = specialization.kernel.arg_names
    given = specialization.signature.keys() | specialization.constexprs.keys()
    assert set(names) == given, f"{specialization.name}: {set(names) ^ given}"
    signature, attributes = {}, {}
    for position, name in enumerate(names):
        kind, _, divisor = specialization.signature.get(name, "constexpr").partition(":")
        signature[name] = kind
        if kind.startswith("*") or divisor:
            attributes[(position,)] = [["tt.divisibility", _ALIGNMENT]]
    constexprs = dict(specialization.constexprs)
    return ASTSource(specialization.kernel, signature, constexprs, attributes)


def _usage(cubin: bytes) -> tuple[int, int]:
    """Return a thread's registers and bytes of local memory."""
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_CUOBJDUMP, "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", told)
    assert found, told
    registers, stack_bytes, local_bytes = map(int, found.groups())
    return registers, stack_bytes + local_bytes
