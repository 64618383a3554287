"""The images of a record set as files again, for programs that read no records."""

from pathlib import Path, PurePosixPath

from tqdm import tqdm

from mtnet_jax.data.listing import IMAGE_SUFFIXES
from mtnet_jax.data.records import RecordSource
from mtnet_jax.data.selection import selected_splits
from mtnet_jax.errors import BadRecord
from mtnet_jax.outputs import Outputs

# How the file of an image begins, and its endings, the first of which is given to what has none.
_SIGNATURES = ((b"\xff\xd8", (".jpg", ".jpeg")), (b"\x89PNG", (".png",)))
_UNKNOWN = (".img",)


def write_images(selection: str, out: Path) -> int:
    """Writes the images of a record set, byte for byte as they are stored.

    Args:
      selection: DIR[:SPLIT], all splits unless one is named.
      out: folder; each image goes to its image_id there, with an ending of its format.

    Returns:
      How many images were written.

    Raises:
      FileNotFoundError, ValueError: no such records.
      FileInTheWay: something else stands where an image would go.
      BadRecord: an image_id that is no place below a folder.
    """
    record_set, splits = selected_splits(selection)
    outputs, count = Outputs("data images"), 0
    for split in splits:
        source = RecordSource(record_set.path, split, decode=False)
        of = f"{record_set.path.resolve()}:{split}"
        for index in tqdm(range(len(source)), desc=split, unit="image"):
            record = source[index]
            outputs.write(out / _file(record["image_id"], record["image"]), record["image"], of)
            count += 1
    return count


def _file(image_id: str, image: bytes) -> PurePosixPath:
    path = PurePosixPath(image_id)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise BadRecord(f"image {image_id!r}: its name is no place below a folder.")
    endings = next((endings for begin, endings in _SIGNATURES if image.startswith(begin)), _UNKNOWN)
    if path.suffix.lower() in endings:
        return path
    # What records hold may be of another format than the file was that it came from.
    name = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return path.with_name(name + endings[0])
