"""Name this machine in asv's results, with what decides the figures.

    python asv_benchmarks/machine.py [NAME]

As ``asv machine --yes`` does, but the description of the processor says the width of vectors, the instructions for
bytes and bfloat16, and the caches; asv shows it beside the graphs and keeps it in ``results/NAME/machine.json``.
"""

import platform
import sys
from pathlib import Path

from rvtrain import _machine

FLAGS = ("avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")


def processor() -> tuple[str, set[str]]:
    """Name and flags of the processor, as Linux tells them; elsewhere Python's name of it."""
    name, flags = platform.processor() or platform.machine(), set()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
    return name, flags


def description() -> str:
    """Processor, vectors, instructions and caches in a line."""
    name, flags = processor()
    facts = _machine.facts()
    instructions = [flag for flag in FLAGS if flag in flags]
    parts = [
        name,
        f"vectors of {facts['vector bits']} bits",
        f"8-bit products: {facts['8-bit products']}",
        "has " + (" ".join(instructions) or f"none of {' '.join(FLAGS)}"),
        str(facts["caches"]),
    ]
    return "; ".join(part for part in parts if part)


def main() -> None:
    from asv.machine import Machine, MachineCollection

    name = sys.argv[1] if len(sys.argv) > 1 else platform.node()
    facts = Machine.get_defaults() | {"machine": name, "cpu": description()}
    MachineCollection.save(name, facts)
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))


if __name__ == "__main__":
    main()
