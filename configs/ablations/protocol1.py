r"""Euler angles, 6D, vectors and quaternions by the paper's protocol 1: 300W-LP to BIWI, AFLW2000.

    mtnet data convert 300w_lp --raw DIR --out records/w300_lp
    mtnet data convert biwi --raw DIR --out records/biwi --protocol all
    mtnet data convert aflw2000 --raw DIR --out records/aflw2000
    mtnet ablate protocol1 --workdir runs/protocol1_ablation \
        --config.init.darknet_weights=yolov3.weights

(`mtnet protocol 1` makes the same records, in WORKDIR/records.) The setting of the paper's section
4.1 (`configs/protocol1.py`), for GPUs or TPUs: the first two phases, in which no pose is learned,
are trained once for each seed, and all arms begin with that detector. What it costs, and how it is
tried small: docs/ablation.md.
"""

from mtnet_jax.ablation.spec import Ablation, HeldOut

# The 20 people of BIWI's 24 sequences: four have two sequences, and an image is called 03/frame_...
# What the expression finds is the person; each of the four finds another part of "frame".
PERSON = r"^(?:03|15)/(frame)|^(?:05|18)/(fram)|^(?:02|21)/(fra)|^(?:01|22)/(fr)|^\d\d"


def get_ablation():
    return Ablation(
        config="protocol1",
        arms={
            "v2 vectors": {"model.representation": "vectors"},
            "v2 euler": {"model.representation": "euler"},
            "v2 6D": {"model.representation": "sixd"},
            "v2 quaternion": {"model.representation": "quaternion"},
        },
        seeds=(0, 1, 2),
        reference="v2 vectors",
        test_sets={
            "biwi": HeldOut("records/biwi", "test", PERSON),
            "aflw2000": HeldOut("records/aflw2000", "test"),
        },
        detector_phases=("phase1", "phase2"),
    )
