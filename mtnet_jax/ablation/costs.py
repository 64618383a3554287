"""What a run took, and how it went: parameters, operations, images seen, time, curves."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mtnet_jax.ablation.spec import FINISHED
from mtnet_jax.run_metrics import read_metrics
from mtnet_jax.saved_config import read_config
from mtnet_jax.system import abstract_variables, build_system
from mtnet_jax.training.utilisation import flops_of


def run_log(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Lines of a run's log by kind ("train", "eval/NAME"), with the "images" seen until each."""
    config = read_config(folder)
    assert config is not None, "a finished run has one"
    found: dict[str, list[dict[str, Any]]] = {}
    images, step = 0, 0
    for line in sorted(read_metrics(folder), key=lambda each: each["step"]):
        images += (line["step"] - step) * config.phases[line["phase"]].batch_size
        step = line["step"]
        found.setdefault(line["kind"], []).append({**line, "images": images})
    return found


def cost_of_run(folder: Path) -> dict[str, float | None]:
    """Cost of a finished run.

    Args:
      folder: its work directory.

    Returns:
      "parameters"; "flop_of_image", of the network in prediction, as XLA counts them; "images" it
      was trained on; "seconds_of_1000_images", of the steps alone, as they were logged: without
      compiling, evaluating, and being stopped. None for what is not known: XLA counts operations
      on a CPU, which $JAX_PLATFORMS may leave out.
    """
    sizes = json.loads((folder / FINISHED).read_text())["parameters"]
    lines = run_log(folder)["train"]
    timed = [line for line in lines if line["images_per_second"]]
    before = [0, *(line["images"] for line in lines)]
    seen = {line["step"]: line["images"] - b for line, b in zip(lines, before, strict=False)}
    seconds = sum(seen[line["step"]] / line["images_per_second"] for line in timed)
    timed_images = sum(seen[line["step"]] for line in timed)
    return {
        "parameters": sum(sizes.values()),
        "flop_of_image": _operations(read_config(folder)),
        "images": lines[-1]["images"],
        "seconds_of_1000_images": 1000 * seconds / timed_images if timed_images else None,
    }


def _operations(config: Any) -> float | None:
    """Floating-point operations of a network for one image; None where they cannot be counted."""
    system = build_system(config)
    image = np.zeros((1, system.grid.size, system.grid.size, 3), np.float32)
    return flops_of(system.model.apply, abstract_variables(system), image) or None
