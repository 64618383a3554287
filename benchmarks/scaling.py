"""What a step would cost on many accelerators: planned from formulas, measured nowhere.

    python -m benchmarks.scaling

Prints the table of docs/scaling.md, which has the formulas and where each number comes from.
"""

from typing import NamedTuple

FORWARD_FLOP = 66.0e9  # of an image of 416 pixels, version v2 (docs/network.md)
PARAMETERS = 62.3e6
BATCH_NORMS = 75  # layers whose statistics are summed over all devices, twice a step
CONVOLUTION_OUTPUTS = 36e6  # numbers of an image, over all layers of the network at 416 pixels


class Machine(NamedTuple):
    """Accelerators of one kind, as their makers describe them."""

    name: str
    chips: int
    chips_a_host: int
    peak: float  # FLOP/s a chip, bfloat16, dense
    memory: float  # bytes a chip
    link: float  # bytes/s out of a chip to the others
    latency: float  # seconds of a small all-reduce; assumed


MACHINES = (
    Machine("8 H100 SXM", 8, 8, 989e12, 80e9, 450e9, 20e-6),
    Machine("32 TPU v5e", 32, 8, 197e12, 16e9, 200e9, 20e-6),
    Machine("256 TPU v5e", 256, 8, 197e12, 16e9, 200e9, 40e-6),
)
UTILISATIONS = (0.1, 0.2, 0.4)  # of the peak; assumed


class Step(NamedTuple):
    """What a step costs."""

    compute: float  # seconds
    gradients: float  # seconds of their all-reduce, which the backward pass can hide
    statistics: float  # seconds of BatchNorm's all-reduces, which nothing hides
    images: float  # a second, over all chips, if the gradients are hidden
    images_a_host: float
    memory: float  # bytes a chip


def plan(machine: Machine, batch: int, utilisation: float) -> Step:
    """The formulas."""
    images = batch / machine.chips
    compute = 3 * FORWARD_FLOP * images / (utilisation * machine.peak)
    share = (machine.chips - 1) / machine.chips
    gradients = 2 * share * 4 * PARAMETERS / machine.link
    statistics = 2 * BATCH_NORMS * machine.latency
    seconds = max(compute, gradients) + statistics
    hosts = machine.chips / machine.chips_a_host
    # Parameters, gradients, two moments and the average in float32; of each convolution its output
    # and what BatchNorm makes of it in bfloat16.
    memory = 5 * 4 * PARAMETERS + images * 2 * 2 * CONVOLUTION_OUTPUTS
    rate = batch / seconds
    return Step(compute, gradients, statistics, rate, rate / hosts, memory)


def main() -> None:
    """Prints the table."""
    print("| machine | batch | of peak | compute ms | gradients ms | BatchNorm ms | images/s | "
          "for each host | GB a chip |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for machine in MACHINES:
        for batch in (1024, 4096):
            for utilisation in UTILISATIONS:
                step = plan(machine, batch, utilisation)
                times = (1e3 * step.compute, 1e3 * step.gradients, 1e3 * step.statistics)
                print(
                    f"| {machine.name} | {batch:,} | {utilisation:.0%} | "
                    + " | ".join(f"{ms:.1f}" for ms in times)
                    + f" | {step.images:,.0f} | {step.images_a_host:,.0f} | "
                    f"{step.memory / 1e9:.1f} |"
                )


if __name__ == "__main__":
    main()
