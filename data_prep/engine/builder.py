"""Writes record sets: every conversion becomes a tensorflow-datasets builder directory.

A conversion has two stages, each a row of independent tasks for a runner (`runners`):

    items    -> parts    units.UnitWriter: reads raw data, encodes records
    parts    -> shards   shards.ShardWriter: copies records in their shuffled order

Between them an index of the parts says which record goes where. Parts and unfinished shards lie in
`.NAME.parts` beside the record set. One rename puts the finished set in its place. After a stop the
parts stay, and the next run goes on from them.

tensorflow-datasets writes the metadata. Its own ways to write records do not serve: the generator
runs in one process, its Beam writer takes every image through Beam's shuffle and holds whole
shards in memory, neither can go on after a stop, and both need TensorFlow to write a TFRecord file.
"""

import contextlib
import errno
import fcntl
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.core import dataset_builder, splits

from data_prep.engine import runners
from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.report import Report
from data_prep.engine.report_page import write_report
from data_prep.engine.shards import Index, Shard, ShardWriter
from data_prep.engine.units import UnitWriter, count_units, plan_units
from mtnet_jax.data.example import tfds_features
from mtnet_jax.data.index import encode_index, index_path
from mtnet_jax.errors import BadInput, FileInTheWay, Unavailable
from mtnet_jax.places import Place

_BUILT = "built"  # of the folder of the parts: where the record set is written
_PLACED = "placed"  # there since before the set is moved to its place, which is the last step


class RecordSetBuilder(  # type: ignore[call-arg]  # tfds comes without types
    dataset_builder.FileReaderBuilder, skip_registration=True
):
    """The tensorflow-datasets builder of any conversion: names the shards, writes the metadata."""

    # Nothing is downloaded. To look for checksums, tfds would import a package it does not require.
    url_infos: ClassVar[dict] = {}

    def __init__(
        self,
        description: Description,
        index: Index,
        write_shards: Callable[[Sequence[Shard]], None],
        *,
        data_dir: os.PathLike,
    ):
        """Makes a builder of records that lie in parts.

        Args:
          description: of the record set.
          index: of the parts.
          write_shards: writes the files of these shards.
          data_dir: in which tensorflow-datasets makes the folders NAME/VERSION.
        """
        self._description, self._index, self._write_shards = description, index, write_shards
        self.name = description.name
        self.VERSION = tfds.core.Version(description.version)
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        about = self._description
        return tfds.core.DatasetInfo(
            builder=self,
            description=about.text,
            features=tfds_features(),
            homepage=about.homepage,
            citation=about.citation,
            license=about.licence,
            metadata=tfds.core.MetadataDict(
                box_rule=about.box_rule, label_names=list(about.label_names)
            ),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        shards, infos = [], []
        for split in self._index.places:
            template = self._get_filename_template(split_name=split)
            places = self._index.shards(split)
            for i, part in enumerate(places):
                path = template.sharded_filepath(shard_index=i, num_shards=len(places))
                shards.append(Shard(Path(path), part))
            infos.append(
                splits.SplitInfo(
                    name=split,
                    shard_lengths=[len(part) for part in places],
                    num_bytes=self._index.sizes(split)[1],
                    filename_template=template,
                )
            )
            self._write_index(split, shards[-len(places) :])
        self._write_shards(shards)
        self.info.set_splits(splits.SplitDict(infos))

    def _write_index(self, split: str, shards: Sequence[Shard]) -> None:
        path = index_path(shards[0].path.parent, self.name, split)
        rows = [(shard.path.name, shard.places["length"]) for shard in shards]
        path.write_bytes(encode_index(rows))


def write_record_set(
    conversion: Conversion,
    out: str | os.PathLike,
    *,
    overwrite: bool = False,
    processes: int = 1,
    beam_runner: str = "",
    beam_options: Sequence[str] = (),
) -> Report:
    """Converts a data set into a record set on disk.

    What is written lies in `.NAME.parts` beside `out` until one rename puts it at `out`, so a half
    written set never stands there. When a conversion fails or is killed its finished parts stay;
    converting again with the same options goes on from them. The files are the same, byte for byte,
    for any number of processes, any runner and any number of stops.

    Args:
      conversion: the data set.
      out: the directory of the record set (the tensorflow-datasets builder directory itself).
      overwrite: replace a record set that is there already.
      processes: how many processes work; 1 stays in this one (unless Beam does the work).
      beam_runner: name of an Apache Beam runner, which then does the work instead.
      beam_options: of the Beam pipelines.

    Returns:
      The report, which also lies in `out` as conversion.txt, conversion.json and conversion.html.

    Raises:
      FileExistsError: `out` exists and overwrite is False, or it is not a record set.
      ValueError: a split without images, two images of one id, a record that breaks the schema,
        or what the converter raises for damaged raw data.
      OSError: the disk is full, a folder is read-only, another process writes to `out`, or a worker
        died (ChildProcessError).
    """
    out = Path(out)
    check_target(out, overwrite=overwrite)
    staging = _staging_of(out)
    run: runners.Runner
    with _staging(staging):
        if beam_runner:
            run = runners.Beam(beam_runner, beam_options, processes, staging / "tasks")
        else:
            run = runners.on_processes(min(processes, count_units(conversion)))
        _write_parts(conversion, staging, run)
        report = Report(conversion.description)
        for event, place, count in conversion.notes:
            report.notes.add(event, place, count=count)
        units = ((unit.number, unit.split) for unit in plan_units(conversion))
        index = Index(staging, units, report)
        _refuse_empty_splits(conversion, report)
        built = _build(conversion.description, index, staging, run)
        write_report(report, built)
        _put_in_place(built, out, staging / "replaced")
    return report


def check_not_raw(out: Place, raw: Path) -> None:
    """Raises BadInput where writing the record set would replace the raw data or hide in them."""
    if isinstance(out, Path) and out.resolve() in (raw.resolve(), *raw.resolve().parents):
        raise BadInput(f"--out {out} holds the raw data, {raw}: choose another --out.")


def check_target(out: Place, *, overwrite: bool) -> None:
    """Raises FileExistsError unless a record set may be written at `out`."""
    if isinstance(out, Path):
        _clear_up(out)
    if not out.exists():
        return
    if not (out / "dataset_info.json").is_file():
        raise FileInTheWay(
            f"{out} exists and is not a record set (no dataset_info.json), so --overwrite leaves "
            "it alone: choose another --out."
        )
    if not (out / "conversion.json").is_file():
        raise FileInTheWay(
            f"{out} is a record set of something else (no conversion.json), so --overwrite leaves "
            "it alone: choose another --out."
        )
    if not overwrite:
        raise FileInTheWay(f"{out} exists already: give --overwrite to replace it.")


def _staging_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def _clear_up(out: Path) -> None:
    """Removes what a conversion left that was killed when its record set was in its place."""
    staging = _staging_of(out)
    shutil.rmtree(_removed(staging), ignore_errors=True)
    moved = not any((staging / _BUILT).rglob("dataset_info.json"))
    if (staging / _PLACED).exists() and moved and out.exists():
        shutil.rmtree(staging)


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """The folder of the parts, for one process at a time; removed when all is done.

    After an error it stays if it holds a finished part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another process is converting in {folder}: wait for it") from None
        for unfinished in folder.glob("*.unfinished"):
            unfinished.unlink()
        try:
            yield
        except BaseException as error:
            if not any(folder.glob("*.pickle")):
                shutil.rmtree(folder)
            elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable(
                    error.errno,
                    f"{error.strerror}: converting takes twice the size of the record set. The "
                    "finished parts stay: make room and run the same command again to go on",
                    str(folder),
                ) from error
            raise
        # Renamed first: what a kill leaves of it is no longer the parts of a conversion.
        removed = _removed(folder)
        shutil.rmtree(removed, ignore_errors=True)
        os.rename(folder, removed)
        shutil.rmtree(removed)


def _removed(staging: Path) -> Path:
    """Where the parts of a conversion that is done lie while they are removed."""
    return staging.with_name(f"{staging.name}.removed")


def _write_parts(conversion: Conversion, folder: Path, run: runners.Runner) -> None:
    total = sum(map(len, conversion.splits.values()))
    write = UnitWriter(conversion, folder)
    found = outdated = images = 0
    with tqdm.tqdm(total=total, desc="read", unit=" items", smoothing=0.05) as bar:
        for done in run(write, plan_units(conversion)):
            found += done.found
            outdated += done.outdated
            images += done.images
            bar.update(done.items)
            bar.set_postfix_str(f"{images} images", refresh=False)
    count = count_units(conversion)
    if found:
        print(f"{found} of {count} parts were there from an earlier run.", file=sys.stderr)
    if outdated:
        print(
            f"{outdated} of {count} parts of an earlier run were written again: options, raw data "
            "or code have changed.",
            file=sys.stderr,
        )


def _refuse_empty_splits(conversion: Conversion, report: Report) -> None:
    for split, items in conversion.splits.items():
        if not report.splits[split]["images"]:
            said = [
                f"{events.counts[reason]} {what}{reason}: {places[0]}"
                for what, events in (("dropped, ", report.dropped_images), ("", report.notes))
                for reason, places in events.items()
            ]
            raise BadInput(
                f"Split {split!r} has no images, nothing was written. "
                f"{'; '.join(said) or f'None came of its {len(items)} items'}. Change what leaves "
                "them out, or leave the split out."
            )


def _build(description: Description, index: Index, folder: Path, run: runners.Runner) -> Path:
    """Writes shards and metadata; returns their folder."""
    data_dir = folder / _BUILT
    (folder / _PLACED).unlink(missing_ok=True)
    shutil.rmtree(data_dir, ignore_errors=True)

    def write_shards(shards: Sequence[Shard]) -> None:
        records = sum(len(shard.places) for shard in shards)
        with tqdm.tqdm(total=records, desc="write", unit=" images") as bar:
            for count in run(ShardWriter(folder), shards):
                bar.update(count)

    builder = RecordSetBuilder(description, index, write_shards, data_dir=data_dir)
    # tfds announces a download and a place that is only temporary.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(file_format="tfrecord")
    return Path(builder.data_dir)


def _put_in_place(built: Path, out: Path, replaced: Path) -> None:
    for unfinished in built.glob("*.unfinished"):  # of a worker that died, whose task was repeated
        unfinished.unlink()
    if out.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(out, replaced)
    (replaced.parent / _PLACED).touch()
    os.rename(built, out)
