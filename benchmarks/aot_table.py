"""What our Triton kernels take of GPUs, compiled ahead of time for each; needs no GPU.

    python -m benchmarks.aot_table CAPABILITY ...        (`make aot`: 80 89 90 100 120)

Each kernel in each launch of its table: registers of a thread, shared memory, spills, and whether
products are Hopper's. Fails if one does not compile or takes more shared memory than there is, if
one of attention spills, or multiplies on Hopper as older GPUs do in a prefill, and if one is in no
table.
"""

import ast
import multiprocessing
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from triton.runtime.jit import JITFunction

from octavo.kernels import gpu
from octavo.kernels.gpu.aot import Resources, Specialization, compile_for

# What a step waits for longest; its launches are chosen so that registers suffice.
_ATTENTION = {"decode_attention", "merge_parts", "prefill_attention"}
_HOPPER = 90

_COLUMNS = f"{'registers':>9} {'shared B':>9} {'spilled B':>9} {'wgmma':>6}  configuration"


class Row(NamedTuple):
    """One kernel in one launch, for one capability; an error in the place of what it takes."""

    specialization: Specialization
    capability: int
    outcome: Resources | str

    @property
    def fault(self) -> str | None:
        """What must not be."""
        if isinstance(self.outcome, str):
            return self.outcome
        operation = str(self.specialization.kernel.__module__).rpartition(".")[2]
        if operation in _ATTENTION and self.outcome.spilled_bytes:
            return "attention spills"
        is_for_hopper = operation == "prefill_attention" and self.capability == _HOPPER
        if is_for_hopper and not self.outcome.has_wgmma:
            return "no product of a warp group"
        return None


def modules() -> list[ModuleType]:
    """Return the Triton side of all operations."""
    names = [module.name for module in pkgutil.iter_modules(gpu.__path__)]
    return [import_module(f"{gpu.__name__}.{name}") for name in sorted(names)]


def specializations_of(module: ModuleType) -> list[Specialization]:
    return list(getattr(module, "aot_specializations", list)())


def jit_functions(module: ModuleType) -> Iterator[Any]:
    """Yield what `triton.jit` made in a module, and not what it imports."""
    for value in vars(module).values():
        if isinstance(value, JITFunction) and value.__module__ == module.__name__:
            yield value


def never_compiled(found: Iterable[ModuleType]) -> list[str]:
    """Return the functions that are in no table, and in no function that is."""
    found = list(found)
    reached: set[int] = set()
    queue = [each.kernel for module in found for each in specializations_of(module)]
    while queue:
        function = queue.pop()
        if id(function) not in reached:
            reached.add(id(function))
            queue.extend(_called(function))
    functions = [function for module in found for function in jit_functions(module)]
    return [
        f"{each.__module__}.{each.fn.__name__}" for each in functions if id(each) not in reached
    ]


def _called(function: Any) -> Iterator[Any]:
    names = {node.id for node in ast.walk(function.parse()) if isinstance(node, ast.Name)}
    for name in names:
        if isinstance(value := function.fn.__globals__.get(name), JITFunction):
            yield value


def compile_all(capabilities: Iterable[int]) -> Iterator[Row]:
    """Compile on all cores what is launched on GPUs of each capability."""
    jobs = [
        (module.__name__, index, capability)
        for capability in capabilities
        for module in modules()
        for index, each in enumerate(specializations_of(module))
        if each.is_for(capability)
    ]
    # Forked, for to import torch takes longer than most compilations.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context) as pool:
        for (module_name, index, capability), outcome in zip(
            jobs, pool.map(_compile, jobs), strict=True
        ):
            specialization = specializations_of(import_module(module_name))[index]
            yield Row(specialization, capability, outcome)


def _compile(job: tuple[str, int, int]) -> Resources | str:
    module_name, index, capability = job
    torch.set_num_threads(1)
    try:
        return compile_for(specializations_of(import_module(module_name))[index], capability)
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are wanted
        return f"{type(error).__name__}: {error}".partition("\n")[0]


def configuration(specialization: Specialization) -> str:
    """Return types and constants in a line."""
    kinds = dict.fromkeys(
        kind[1:] for kind in specialization.signature.values() if kind.startswith("*")
    )
    constants = [
        f"{name}={value}"
        for name, value in specialization.constexprs.items()
        if name.isupper() and value is not None
    ]
    launch = f"warps={specialization.num_warps} stages={specialization.num_stages}"
    return " ".join([",".join(kinds), *constants, launch])


def _told(outcome: Resources | str) -> str:
    if isinstance(outcome, str):
        return " " * _COLUMNS.index("  configuration")
    has_wgmma = "yes" if outcome.has_wgmma else "-"
    numbers = (outcome.registers, outcome.shared_bytes, outcome.spilled_bytes)
    return " ".join(f"{each:>9}" for each in numbers) + f" {has_wgmma:>6}"


def main() -> int:
    is_good = True
    last = ("", 0)
    for row in compile_all(map(int, sys.argv[1:])):
        name = (row.specialization.name.strip("_"), row.capability)
        if name != last:
            print(f"\n{name[0]}, sm_{name[1]}\n{_COLUMNS}")
            last = name
        print(f"{_told(row.outcome)}  {configuration(row.specialization)}", flush=True)
        if row.fault is not None:
            is_good = False
            print(f"    {row.fault}")
    for name_of in never_compiled(modules()):
        is_good = False
        print(f"{name_of} is in no launch table", file=sys.stderr)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
