"""What each protocol converts, trains on and tests on, and what its numbers compare with."""

from collections.abc import Mapping
from dataclasses import dataclass

from mtnet_jax.errors import BadInput
from mtnet_jax.protocols import published
from mtnet_jax.protocols.published import Row

CROPS = (
    "Rows of methods that are given crops of heads miss no head; a detector's errors are of the "
    "heads it found: read them with the share that was found."
)
PAIRING = (
    "The paper does not say how it paired predictions with truths, nor what became of missed "
    "heads: `matched` and `authors` (docs/evaluation.md) are both given."
)
CANONICAL = (
    "Angles are canonical, differences wrapped at 180 degrees, and no error is replaced by 180 "
    "minus itself."
)
IOU = (
    "IoU of the matched heads, and of all with a missed one as 0; which of them the paper prints "
    "is not said, nor its rule for boxes. Compare IoUs of one box rule alone."
)


@dataclass(frozen=True)
class EvalSet:
    """A test set: its split in the records, published rows, and what makes rows comparable."""

    title: str
    split: str
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class RawSet:
    """A raw data set of a protocol.

    Attributes:
      name: of the records, and of the set in the configuration.
      converter: of `mtnet data convert`.
      options: of the converter, as the protocol has them.
      test: what is tested on it; None: it trains alone.
    """

    name: str
    converter: str
    options: tuple[str, ...]
    test: EvalSet | None


@dataclass(frozen=True)
class Protocol:
    """A protocol of the paper.

    Attributes:
      config: name of the configuration that ships.
      needed: the raw sets without which there is nothing to do.
    """

    number: int
    config: str
    needed: tuple[RawSet, ...]


_BIWI_REMARKS = (
    "BIWI has no boxes: the rule `head` projects an average head (docs/data.md).",
    "Rotations as in pose.txt, all frames with a pose; papers that turn them into the colour "
    "camera (`--convert biwi=--calibrated`), or keep the frames on which a face detector fired, "
    "have other truths.",
)
_W300_LP = RawSet("w300_lp", "300w_lp", (), None)
_BIWI_ALL = RawSet(
    "biwi",
    "biwi",
    ("--protocol", "all"),
    EvalSet(
        "Table 1: trained on 300W-LP, tested on all of BIWI",
        "test",
        published.BIWI,
        (
            "300W-LP without the images that have an angle beyond 99 degrees, as the protocol has "
            "it; boxes of both sets follow the rule `head`.",
            *_BIWI_REMARKS,
            "The WHENet row of the paper's Table 1 (5.11, 6.24, 4.92, 5.42) is WHENet's on "
            "AFLW2000; here stands that on BIWI.",
        ),
    ),
)
_BIWI_70_30 = RawSet(
    "biwi",
    "biwi",
    ("--protocol", "70-30"),
    EvalSet(
        "Table 2: BIWI, 16 sequences for training, 8 for testing",
        "test",
        published.BIWI_70_30,
        (
            "The published rows do not say which sequences (or images) they drew; the list here is "
            "data_prep/sets/biwi.py's, and 3 of its 8 show people who are trained on.",
            *_BIWI_REMARKS,
        ),
    ),
)
_BIWI_DISJOINT = RawSet(
    "biwi",
    "biwi",
    ("--protocol", "subject-disjoint"),
    EvalSet(
        "BIWI, 16 sequences for training, 8 of other people for testing",
        "test",
        published.BIWI_70_30,
        (
            "Harder than the published rows, whose splits know no people: it shares no person "
            "between training and testing.",
            *_BIWI_REMARKS,
        ),
    ),
)
_PANOPTIC = RawSet(
    "panoptic",
    "panoptic",
    (),
    EvalSet(
        "Table 3: CMU Panoptic, the public split by sequence",
        "test",
        published.CMU,
        (
            "The paper trained on 81 sequences (some 400,000 images) and names no test sequences; "
            "here are 9 and 8 of a public list, every 60th frame.",
            "Boxes: a sphere of 18 cm round the fitted face; long, huge and lost faces are "
            "ignored, images under 100 kB left out (docs/data.md).",
            "DirectMHP's CMU-HPE has other sequences and frames: --rawdirectmhp measures on it.",
        ),
    ),
)
AFLW2000 = RawSet(
    "aflw2000",
    "aflw2000",
    (),
    EvalSet(
        "AFLW2000",
        "test",
        published.AFLW2000,
        (
            "Published rows train on 300W-LP and leave out the images with an angle beyond 99 "
            "degrees (1,969 of 2,000 remain); so does the converter. DirectMHP leaves out heads "
            "with a yaw beyond 99 degrees alone, and is a detector: its errors are of heads of "
            "score 0.7 and more.",
            "A head with a pitch or a roll beyond 90 degrees has two triples of angles; the one "
            "that is nearer to what is predicted counts (docs/evaluation.md).",
            "Boxes: the rule `head`, an average head at the place of the fitted face.",
        ),
    ),
)
_DIRECTMHP_REMARKS = (
    "Boxes of the rule `sphere18`; angles of its json, canonical.",
    "DirectMHP's AP is over its own boxes; by its code it is the mean from 0.5 to 0.95, and its "
    "errors are of heads of score 0.7 and more that overlap by 0.5.",
)
# By the name that the converter gives the set.
DIRECTMHP = {
    "cmu_hpe": EvalSet(
        "CMU-HPE as DirectMHP publishes it", "val", published.CMU_HPE, _DIRECTMHP_REMARKS
    ),
    "agora_hpe": EvalSet(
        "AGORA-HPE as DirectMHP publishes it",
        "validation",
        published.AGORA_HPE,
        _DIRECTMHP_REMARKS,
    ),
}


def directmhp(number: int) -> RawSet:
    """One of several folders of DirectMHP's; its records will say which set it is."""
    return RawSet(f"directmhp{number}", "directmhp", (), None)


PROTOCOLS: Mapping[int, Protocol] = {
    1: Protocol(1, "protocol1", (_W300_LP, _BIWI_ALL)),
    2: Protocol(2, "protocol2", (_BIWI_70_30,)),
    3: Protocol(3, "protocol3", (_PANOPTIC,)),
}


def protocol(number: int, *, subject_disjoint: bool = False) -> Protocol:
    """A protocol by its number.

    Raises:
      BadInput: subject_disjoint without protocol 2.
    """
    if not subject_disjoint:
        return PROTOCOLS[number]
    if number != 2:
        raise BadInput("--subject-disjoint splits BIWI by people: it belongs to protocol 2.")
    return Protocol(2, "protocol2", (_BIWI_DISJOINT,))
