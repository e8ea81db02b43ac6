"""The scan's Triton kernels, compiled for a GPU that need not be there; what they ask of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def compile_kernel(name: str, dtype: str, capability: int, **changes: Any) -> Any:
    """The compiled kernel `name` of `scan.gpu_kernels`, for u, delta, B, C and z of `dtype`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from scan import gpu, gpu_kernels

    kernel = getattr(gpu_kernels, name)
    fixed: dict[str, Any] = {
        "CHUNK": 64, "REVERSE": False, "SOFTPLUS": True, "HAS_D": True, "HAS_Z": True,
        "HAS_BIAS": True, "HAS_INITIAL": False, "HAS_LAST": False, "WANT_LAST": False, "N": 16,
        **(gpu.FORWARD if name == "scan_forward" else gpu.BACKWARD), **changes,
    }  # fmt: skip
    fixed["LEVELS"] = fixed.get("TILE", 8).bit_length()
    launch = {key: fixed.pop(key) for key in ("num_warps", "maxnreg")}
    sequences = ("u", "delta", "z", "out", "grad_out", "du", "ddelta", "dz")
    signature: dict[str, Any] = {}
    constants: dict[Any, Any] = {}
    aligned: dict[Any, Any] = {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in fixed:
            signature[argument] = "constexpr"
            constants[(place,)] = fixed[argument]
        elif argument.startswith("of_"):
            signature[argument] = ("i32", "i32", "i32")
            aligned.update({(place, k): [["tt.divisibility", 16]] for k in range(3)})
        elif argument in ("directions", "batch", "length", "width", "groups"):
            signature[argument] = "i32"
            if argument == "width":
                aligned[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = "*" + (dtype if argument in sequences else "fp32")
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    options = {key: value for key, value in launch.items() if value is not None}
    options["enable_fp_fusion"] = True
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(compiled: Any) -> dict[str, Any]:
    """Bytes of stack and shared memory, layout conversions, and the instructions, by kind, in the
    innermost loop with most fused multiply-adds, of those that sum over lanes if there are any."""
    import triton

    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])

        def read(option: str) -> str:
            command = [str(tools / "cuobjdump"), option, str(cubin)]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        usage, code = read("-res-usage"), read("-sass")
    found = {key: int(value) for key, value in re.findall(r"(STACK|SHARED):(\d+)", usage)}
    lines = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/ +(.*?);", code)]
    loops = [_kinds(body) for body in _innermost_loops(lines)]
    return {
        "stack": found["STACK"],
        "shared": found["SHARED"],
        "conversions": compiled.asm["ttgir"].count("convert_layout"),
        "loop": max(loops, key=lambda x: (x["SHFL"] > 0, x["FFMA"])),
    }


def _innermost_loops(lines: list[tuple[int, str]]) -> Iterator[list[str]]:
    """Between the target of a branch backwards and that branch, where no such pair lies within."""
    spans = []
    for at, text in lines:
        target = re.search(r"BRA.*0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < at:
            spans.append((int(target[1], 16), at))
    for low, high in spans:
        if not any(low <= a and b <= high and (a, b) != (low, high) for a, b in spans):
            yield [text for at, text in lines if low <= at <= high]


def _kinds(lines: list[str]) -> Counter[str]:
    return Counter(re.sub(r"^@!?U?P\w+ ", "", text).split()[0].split(".")[0] for text in lines)
