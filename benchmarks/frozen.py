"""What a step of each phase costs beside the forward pass alone.

    python -m benchmarks.frozen --width 0.25 --size 224 --batch 8

Contenders, in turn:

- forward: the network on the same batch, with running statistics, as every frozen group runs.
- face: a step that trains the face branch alone (phase 1 of the paper). Nothing but three 1x1
  convolutions is differentiated, so at most 1.15 times the forward pass.
- backbone, neck, face: a step of phase 2: no pose branch.
- everything: a step of phase 3.
- but three stages: the same with the first three stages of the backbone frozen (beyond the paper).

The FLOPs of these programs are compared in tests/test_step.py.
"""

from typing import Any

from benchmarks.timing import Contender, measure, ratio, table, write_json
from benchmarks.train_step import (
    EVERYTHING,
    Run,
    fresh_variables,
    mtnet_step,
    random_batch,
    shape_parser,
    step_config,
)

PHASES = {
    "face": ("face",),
    "backbone, neck, face": ("backbone", "neck", "face"),
    "everything": EVERYTHING,
}
MOST_OF_FORWARD = 1.15


def forward(width: float, size: int, batch: int) -> Run:
    """The network alone."""
    import jax

    from mtnet_jax.cpu import onednn
    from mtnet_jax.cpu.allocator import keep_large_buffers
    from mtnet_jax.cpu.choice import fastest, training_options
    from mtnet_jax.network import normalise_images
    from mtnet_jax.system import build_system

    keep_large_buffers()
    config = step_config(width, size, batch, dtype="float32", trainable=EVERYTHING)
    system = build_system(config)
    system = system._replace(model=fastest(system.model))
    variables = fresh_variables(system)
    images = jax.device_put(random_batch(size, batch, config.input.max_heads)["image"])

    def network(variables: Any, images: Any) -> Any:
        return system.model.apply(variables, normalise_images(images))

    with onednn.compiling():
        compiled = (
            jax.jit(network, compiler_options=training_options()).lower(variables, images).compile()
        )
    return lambda: jax.block_until_ready(compiled(variables, images)), {}


def main() -> None:
    args = shape_parser(__doc__).parse_args()

    shape = {"width": args.width, "size": args.size, "batch": args.batch}
    contenders = {"forward": Contender(forward, shape)}
    for name, trainable in PHASES.items():
        contenders[name] = Contender(mtnet_step, {**shape, "trainable": trainable})
    but_three = {"trainable": EVERYTHING, "frozen_stages": 3}
    contenders["but three stages"] = Contender(mtnet_step, {**shape, **but_three})
    results = measure(contenders, turns=args.turns)
    print(shape)
    print(table(results))
    middle, low, high = ratio(results["face"], results["forward"])
    verdict = "reached" if middle <= MOST_OF_FORWARD else "missed"
    print(f"phase 1 / forward: {middle:.3f} ({low:.3f} to {high:.3f}); at most 1.15: {verdict}")
    if args.json:
        write_json(args.json, results, shape)


if __name__ == "__main__":
    main()
