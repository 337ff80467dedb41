"""Every shipped setting of the fused Triton kernels, compiled for GPUs that need not be there.

``python -m benchmarks.gpu.triton_aot`` prints registers, spills and shared memory of each; with
``--check`` it ends with an error where one is past its bound (:mod:`benchmarks.gpu.triton_bounds`). Run
it again with Triton's cache filled and it takes seconds.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.core.process import printed_by
from benchmarks.gpu.triton_bounds import most_spilled, shared_limit
from lares_kernels import CoreConfig
from lares_kernels.spec.config import MIXERS
from lares_kernels.triton.fused.kernels.backward import backward_kernel
from lares_kernels.triton.fused.kernels.forward import forward_kernel
from lares_kernels.triton.fused.kernels.weight_gradients import weights_kernel
from lares_kernels.triton.fused.launch import options_of
from lares_kernels.triton.launch.constants import MIN_SIDE, Constants, compile_time, constants
from lares_kernels.triton.launch.rules import Setting
from lares_kernels.triton.launch.settings import BESIDES, settings

TARGETS = {
    "sm80": GPUTarget("cuda", 80, 32),
    "sm90": GPUTarget("cuda", 90, 32),
    "sm100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
PUBLISHED = CoreConfig(dropout=0.5, attn_dropout=0.5)
COLUMNS = (
    *("GPU", "kernel", "products", "layers", "rows", "warps", "weights", "dropout"),
    *("registers", "spilled", "shared"),
)
_TYPES = {"half": "bf16", "tf32": "fp32", "ieee": "fp32"}


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes.

    Attributes:
        registers: a thread.
        spilled: bytes of stack a thread (NVIDIA), vector registers (AMD).
        shared: bytes a program.
    """

    registers: int
    spilled: int
    shared: int


# Types of a training call's arguments, with a drawn state and a trajectory. Those of products have the
# products' type, those of none are left out.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "*fp32": (
        *("vectors", "kept", "trajectory", "last", "g_trajectory", "g_hidden", "scratch"),
        *("gradients", "g_matrices", "g_vectors"),
    ),
    "products": ("hidden", "matrices", "units", "sides"),
    "*i32": ("rows", "tile_start", "totals", "row_depth"),
    "i32": (
        *("max_steps", "steps_done", "kept_rows", "n_hidden_rows", "first_step", "last_step"),
        *("n_steps", "splits", "begins"),
    ),
    "*i64": ("seed",),
    "fp32": ("state_scale",),
    "": ("state", "final", "g_state", "carry", "g_first", "concat_rows", "transforms"),
}


def arguments(precision: str, mixes_window: bool) -> dict[str, str]:
    """Types by argument."""
    of_products = "*" + _TYPES[precision]
    found = {
        name: of_products if type_ == "products" else type_
        for type_, names in ARGUMENTS.items()
        for name in names
    }
    return found | ({"transforms": of_products} if mixes_window else {})


def source_of(kernel: Any, types: Mapping[str, str], values: Mapping[str, Any]) -> ASTSource:
    """Return a kernel to be compiled: ``values`` of its constants, types of its other arguments."""
    signature, constant, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in values or not types[name]:
            signature[name], constant[(i,)] = "constexpr", values.get(name)
            continue
        signature[name] = types[name]
        if types[name].startswith("*") and name != "seed":  # which is not specialised
            attributes[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constant, attributes)


def resources_of(source: ASTSource, target: GPUTarget, options: Mapping[str, Any]) -> Resources:
    """Compile a kernel and say what it takes."""
    return resources(triton.compile(source, target=target, options=dict(options)))


def resources_of_rule(
    rule: Setting, target: GPUTarget, config: CoreConfig, dropout: bool
) -> Resources:
    """Say what the kernel that ``rule`` is for takes, compiled as a launch would."""
    rows = 32 if rule.kernel == "weights" else rule.rows
    c: Constants = constants(config, rows, dropout, rule.precision, rule.chunk, rule.resident)
    kernel, values = {
        "forward": (forward_kernel, {"DRAWN": True}),
        "backward": (backward_kernel, {}),
        "weights": (weights_kernel, {"CONCAT": False, "BLOCK": c.row_block, "TOKENS": rule.rows}),
    }[rule.kernel]
    values = {"C": compile_time(c), **values}
    source = source_of(kernel, arguments(rule.precision, config.mixes_window), values)
    return resources_of(source, target, options_of(rule))


def resources(compiled: Any) -> Resources:
    """Read from the binary."""
    shared = compiled.metadata.shared
    if "amdgcn" in compiled.asm:
        text = compiled.asm["amdgcn"]
        names = ("vgpr_count", "vgpr_spill_count")
        counts = [re.search(rf"\.{name}:\s+(\d+)", text) for name in names]
        return Resources(*(int(found[1]) for found in counts if found), shared)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = printed_by([str(tool), "--dump-resource-usage", file.name])
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found is not None, text
    return Resources(int(found.group(1)), int(found.group(2)), shared)


@dataclass(frozen=True)
class Compiled:
    """A rule, the core and the dropout it was compiled for, and what that takes."""

    family: str
    rule: Setting
    config: CoreConfig
    dropout: bool
    found: Resources

    def faults(self) -> list[str]:
        """What is past its bound."""
        rule, found = self.rule, self.found
        spilled, most = most_spilled(self.family, rule), shared_limit(self.family, rule)
        texts = []
        if found.spilled > spilled:
            texts.append(f"{found.spilled} spilled, at most {spilled} were")
        if found.shared > most:
            texts.append(f"{found.shared} bytes of shared memory of {most}")
        held = matrix_bytes(self.config)
        if rule.resident and found.shared < held:
            few = f"{found.shared} bytes of shared memory do not hold matrices of {held}"
            texts.append(f"{few}: they are read again and again")
        return texts


def matrix_bytes(config: CoreConfig) -> int:
    """Of the packed matrices of all layers in half precision."""
    return 2 * constants(config, MIN_SIDE, False, "half").layers_size


def config_for(family: str, rule: Setting, mixer: str = "attention") -> CoreConfig:
    """The published core, with as many layers as ``rule`` keeps on the chip if it does.

    Of another ``mixer``, with windows of as many rows as a tile has.
    """
    if mixer != "attention":
        return replace(PUBLISHED, mixer=mixer, window=rule.rows)
    if not rule.resident:
        return PUBLISHED
    one = replace(PUBLISHED, n_layers=1)
    layers = 1
    while layers < rule.most_layers and rule.programs * (
        (layers + 1) * matrix_bytes(one) + BESIDES
    ) <= shared_limit(family, rule):
        layers += 1
    return replace(PUBLISHED, n_layers=layers)


def compiled_rule(family: str, rule: Setting, dropout: bool, mixer: str = "attention") -> Compiled:
    """``rule`` compiled for a GPU of its family and the core it is made for."""
    config = config_for(family, rule, mixer)
    found = resources_of_rule(rule, TARGETS[family], config, dropout)
    return Compiled(family, rule, config, dropout, found)


def table(
    families: list[str], precisions: list[str], most_rows: int, mixer: str = "attention"
) -> Iterator[Compiled]:
    """Every rule that is asked for, without dropout and with it."""
    for family in families:
        for rule in settings(family):
            if mixer not in rule.mixers or rule.precision not in precisions:
                continue
            if rule.kernel != "weights" and rule.rows > most_rows:
                continue
            for dropout in (True,) if rule.kernel == "weights" else (False, True):
                yield compiled_rule(family, rule, dropout, mixer)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", default=[*TARGETS], choices=[*TARGETS])
    parser.add_argument("--precisions", nargs="+", default=[*_TYPES], choices=[*_TYPES])
    parser.add_argument("--most-rows", type=int, default=64, help="of a tile")
    parser.add_argument("--mixer", default="attention", choices=MIXERS, help="of the core")
    parser.add_argument("--check", action="store_true", help="fail where a bound is passed")
    options = parser.parse_args(arguments)
    print(f"Triton {triton.__version__}, {PUBLISHED.d_model=}, mixer {options.mixer}\n")
    print(f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", sep="\n")
    faults = []
    asked = (options.families, options.precisions, options.most_rows, options.mixer)
    for row in table(*asked):
        rule, found = row.rule, row.found
        where = rule.weights if rule.kernel == "forward" else ""
        cells = (
            *(row.family, rule.kernel, rule.precision, row.config.n_layers, rule.rows, rule.warps),
            *(where, "on" if row.dropout else "off", *astuple(found)),
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        what = f"{row.family}, {rule.kernel}, {rule.precision}, {rule.rows} rows"
        faults += [f"{what}: {text}" for text in row.faults()]
    for text in faults:
        print(f"past its bound: {text}")
    return 1 if options.check and faults else 0


if __name__ == "__main__":
    sys.exit(main())
