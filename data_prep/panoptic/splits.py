"""Train and test: by sequence, by camera, or both."""

from collections.abc import Sequence

from mtnet_jax.errors import BadInput

# The public split; the two lists share no sequence.
PUBLIC_TRAIN = (
    "171204_pose3",
    "161029_piano4",
    "160422_ultimatum1",
    "170307_dance5",
    "160906_pizza1",
    "170221_haggling_b3",
    "170224_haggling_a3",
    "170404_haggling_a1",
    "170407_haggling_b2",
)
PUBLIC_TEST = (
    "171026_pose3",
    "171026_cello3",
    "160224_haggling1",
    "160906_ian1",
    "170915_office1",
    "170221_haggling_m3",
    "170228_haggling_b1",
    "170407_haggling_a2",
)
PUBLIC, ALL = "public", "all"


def sequences_of_split(
    choice: Sequence[str], public: Sequence[str], present: Sequence[str], option: str
) -> list[str]:
    """The sequences that an option asks for.

    Args:
      choice: names; or ("public",), those of the public split that are there; or ("all",).
      public: the sequences of the public split.
      present: the sequences that are there.
      option: name of the option, for messages.

    Returns:
      Sequences, in the order of `present`.

    Raises:
      ValueError: a name that is not there.
    """
    if tuple(choice) == (ALL,):
        return list(present)
    if tuple(choice) == (PUBLIC,):
        choice = [name for name in public if name in present]
    for name in choice:
        if name not in present:
            raise BadInput(f"{option} names {name!r}: there is {', '.join(present)}")
    return [name for name in present if name in choice]


def check_disjoint(train: Sequence[str], test: Sequence[str], test_cameras: Sequence[int]) -> None:
    """Raises ValueError where one sequence, seen by the same cameras, is in both splits."""
    both = [name for name in train if name in test]
    if both and not test_cameras:
        raise BadInput(
            f"{', '.join(both)} would be in train and test: name other --train-sequences or "
            "--test-sequences, or split by camera with --test-cameras"
        )
