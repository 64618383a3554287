"""Ablations for tests: a specification, the file of one, and what a run says of a test set."""

from pathlib import Path

import numpy as np

from mtnet_jax.ablation.measure import SETTINGS, Measured
from mtnet_jax.ablation.spec import Ablation, HeldOut
from mtnet_jax.evaluation.metrics import image_state, merge_states
from mtnet_jax.rotations import euler_to_rotation

TWO_ARMS = {"euler": {"model.representation": "euler"}, "vectors": {}}


def ablation(**changes) -> Ablation:
    content = {
        "config": "quickstart",
        "arms": TWO_ARMS,
        "seeds": (0, 1, 2),
        "reference": "vectors",
        "test_sets": {"demo": HeldOut("demo/studio_demo")},
    }
    return Ablation(**{**content, **changes})


def written(tmp_path: Path, **changes) -> Path:
    """A spec file that gives `ablation(**changes)`."""
    path = tmp_path / "spec.py"
    path.write_text(
        "from mtnet_jax.ablation.spec import Ablation, HeldOut\n"
        f"def get_ablation():\n    return {ablation(**changes)!r}\n"
    )
    return path


def measured(error: float, *, seed: int, images: int = 40, missed: int = 0) -> Measured:
    """One head an image, its yaw all round; predictions turn it by about `error` degrees."""
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(images):
        truth = euler_to_rotation(np.array([-180 + 360 * i / images, 0, 0]), convention="canonical")
        by = error + rng.normal(0, 0.1)
        turned = euler_to_rotation(np.array([0, 0, by]), convention="canonical") @ truth
        box = np.array([[10.0, 10, 50, 60]])
        found = i >= missed
        prediction = {
            "boxes": np.concatenate([box, box + 100])[0 if found else 1 :],
            "scores": np.array([0.9, rng.uniform(0, 0.8)])[0 if found else 1 :],
            "rotations": np.array([turned, turned])[0 if found else 1 :],
        }
        pairs.append(
            (
                prediction,
                {
                    "boxes": box,
                    "rotations": truth[None],
                    "has_pose": np.ones(1, bool),
                    "ignore": np.zeros(1, bool),
                },
            )
        )
    states = [image_state(p, t, SETTINGS) for p, t in pairs]
    return Measured(
        merge_states(states),
        np.repeat(np.arange(images), [len(s.rows) for s in states]),
        np.repeat(np.arange(images), [len(s.scores) for s in states]),
        np.array([f"person{i % 12:02d}-{i}" for i in range(images)]),
        "demo",
    )
