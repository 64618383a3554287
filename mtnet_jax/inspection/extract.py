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
      out: folder; each image goes to its image_id there, with an ending of its format; of two that
        differ in their endings alone the second gets it behind its own.

    Returns:
      How many images were written.

    Raises:
      FileNotFoundError, ValueError: no such records.
      FileInTheWay: something else stands where an image would go.
      BadRecord: an image_id that is no place below a folder, or one of two images.
    """
    record_set, splits = selected_splits(selection)
    outputs, written = Outputs("data images"), dict[str, str]()  # file in small letters -> image_id
    for split in splits:
        source = RecordSource(record_set.path, split, decode=False)
        of = f"{record_set.path.resolve()}:{split}"
        for index in tqdm(range(len(source)), desc=split, unit="image"):
            record = source[index]
            image_id, image = record["image_id"], record["image"]
            names = [str(name) for name in _files(image_id, image)]
            free = [name for name in names if name.lower() not in written]
            if not free or image_id in (written.get(name.lower()) for name in names):
                raise BadRecord(
                    f"image {image_id!r} would replace another one, {out / names[0]}: write splits "
                    "that share names into folders of their own, with DIR:SPLIT."
                )
            outputs.write(out / free[0], image, of)
            written[free[0].lower()] = image_id
    return len(written)


def _files(image_id: str, image: bytes) -> list[PurePosixPath]:
    """What the file of an image may be called, the first where that is free."""
    path = PurePosixPath(image_id)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise BadRecord(f"image {image_id!r}: its name is no place below a folder.")
    endings = next((endings for begin, endings in _SIGNATURES if image.startswith(begin)), _UNKNOWN)
    whole = path.with_name(path.name + endings[0])
    if path.suffix.lower() in endings:
        return [path, whole]
    # What records hold may be of another format than the file was that it came from.
    name = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return [path.with_name(name + endings[0]), whole]
