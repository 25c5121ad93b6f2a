"""The parity check of every precision, for shipped, foreign and random weights, in this tree and in an earlier one.

Each tree checks its own backends against its own fp32 module on the images of the parity check, in one thread;
"refused" is under that tree's limit. Random weights are those that the reference implementation begins with (normal,
standard deviation 0.02) and those that PyTorch does.

    python -m benchmarks.parity                                      # the shipped pair and random weights
    git worktree add ../before COMMIT
    python -m benchmarks.parity --before ../before --models summer2winter foreign.safetensors --compiled
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EAGER = {"eager bf16": ("eager", "bf16"), "eager mixed": ("eager", "bf16-mixed")}
COMPILED = {
    "compiled bf16": ("inductor", "bf16"),
    "compiled mixed": ("inductor", "bf16-mixed"),
    "Winograd bf16": ("winograd", "bf16"),
    "Winograd mixed": ("winograd", "bf16-mixed"),
}


def main() -> None:
    """Parse, make random weights, check in each tree, print the table, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["summer2winter", "winter2summer"], help="names or files")
    parser.add_argument("--ngf", type=int, nargs="*", default=[64, 32], help="widths of networks with random weights")
    parser.add_argument("--before", type=Path, metavar="DIR", help="an earlier checkout, to compare with")
    parser.add_argument("--compiled", action="store_true", help="compile packages too: a minute or more for each")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(list(_checked(arguments.one, compiled=arguments.compiled))))
        return
    from benchmarks.common import report  # the earlier tree may lack it

    with tempfile.TemporaryDirectory() as scratch:
        models = {**_given(arguments.models), **_random(Path(scratch), arguments.ngf)}
        trees = {} if arguments.before is None else {"before": arguments.before.resolve()}
        trees["now"] = Path(__file__).resolve().parents[1]
        rows = [row for tree, root in trees.items() for row in _in_tree(tree, root, models, arguments.compiled)]
    print(table(rows))
    report("parity", {"checks": rows})


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a line for each model and tree, a column for each backend and precision."""
    columns = list(dict.fromkeys(row["backend"] for row in rows))
    lines = [f"| weights | tree | {' | '.join(columns)} |", "| --- " * (2 + len(columns)) + "|"]
    for model, tree in dict.fromkeys((row["model"], row["tree"]) for row in sorted(rows, key=lambda row: row["order"])):
        found = {row["backend"]: row["result"] for row in rows if (row["model"], row["tree"]) == (model, tree)}
        lines.append(f"| {model} | {tree} | {' | '.join(found.get(column, '') for column in columns)} |")
    return "\n".join(lines)


def _in_tree(tree: str, root: Path, models: dict[str, Path], compiled: bool) -> Iterator[dict[str, Any]]:
    """Run `_checked` on the code of another tree, in a process of its own."""
    command = [sys.executable, "-P", __file__, "--one", *map(str, models.values()), *(["--compiled"] * compiled)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    for order, (name, results) in enumerate(zip(models, json.loads(done.stdout.splitlines()[-1]), strict=True)):
        for backend, result in results.items():
            yield {"model": name, "order": order, "tree": tree, "backend": backend, "result": result}


def _checked(files: list[str], *, compiled: bool) -> Iterator[dict[str, str]]:
    """Yield the parity of each file for every backend and precision that this tree has."""
    import torch

    from engine.model.weights import load_generator
    from engine.runtime.backends.eager import EagerBackend
    from engine.runtime.backends.inductor import InductorBackend
    from engine.runtime.cache import PackageCache
    from engine.runtime.parity import compare

    cpu = torch.device("cpu")
    torch.set_num_threads(1)  # beside other work, two threads take ten times as long
    with tempfile.TemporaryDirectory() as folder:
        packages = PackageCache(Path(folder))
        for file in files:
            generator = load_generator(Path(file))
            results = {}
            for name, (backend, precision) in {**EAGER, **(COMPILED if compiled else {})}.items():
                try:
                    run: Any = (
                        EagerBackend(generator, precision, cpu)
                        if backend == "eager"
                        else InductorBackend(generator, precision, cpu, packages, **_options(backend))
                    )
                except (KeyError, ImportError):  # an earlier tree has no mixed precision or no other trunk
                    continue
                with torch.inference_mode():
                    parity = compare(generator, run)
                result = f"{parity.psnr_db:.1f} dB ({parity.max_error})"
                results[name] = result if parity.passed else f"{result}, refused"
            yield results


def _options(backend: str) -> dict[str, Any]:
    if backend != "winograd":
        return {}
    from engine.runtime.backends.base import KernelOptions

    return {"options": KernelOptions("winograd")}


def _given(models: list[str]) -> dict[str, Path]:
    from engine.model.card import find_model

    return {model: Path(find_model(model)).resolve() for model in models}


def _random(scratch: Path, widths: list[int]) -> dict[str, Path]:
    """Write networks with random weights, as the reference implementation and as PyTorch initialise them."""
    import torch

    from engine.model.card import Architecture, Card
    from engine.model.network import ResnetGenerator
    from engine.model.weights import save_generator

    files = {}
    for ngf in widths:
        for kind in ("reference", "PyTorch"):
            torch.manual_seed(0)
            module = ResnetGenerator(Architecture(ngf=ngf))
            if kind == "reference":
                for parameter in module.parameters():
                    weight = parameter.dim() == 4
                    torch.nn.init.normal_(parameter, 0.0, 0.02) if weight else torch.nn.init.zeros_(parameter)
            name = f"as {kind} initialises, ngf {ngf}"
            files[name] = scratch / f"{kind}-{ngf}.safetensors"
            card = Card(name=f"{kind}-{ngf}".lower(), architecture=module.arch)
            save_generator(files[name], module, card, dtype=torch.float32)
    return files


if __name__ == "__main__":
    main()
