"""Writes record sets: one tensorflow-datasets builder for every converter, without TensorFlow.

tensorflow-datasets does all of it (encoding, shuffling by a hash of the key, shards, metadata) but
needs TensorFlow in two places: to write a TFRecord file, and for the spill files of its shuffle
above 1 GB. The first is replaced through the hook it offers for that (`_example_writer`), the
second by giving the shuffle module plain files (`_plain_spill_files`). The version of
tensorflow-datasets is pinned in requirements.txt; tests/test_data_prep.py covers both places.
"""

import contextlib
import io
import os
import resource
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.core import shuffle, writer

from data_prep.conversion import Conversion
from data_prep.report import Report
from mtnet_jax.data.records import check_record, stable_bytes, tfds_features
from mtnet_jax.data.tfrecord import write_records

_OTHER_FILES = 256  # that a process may have open besides the spill files


class RecordSetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The tensorflow-datasets builder of any `Conversion`."""

    # Nothing is downloaded. To look for checksums, tfds would import a package it does not require.
    url_infos: ClassVar[dict] = {}

    def __init__(self, conversion: Conversion, report: Report, *, data_dir: os.PathLike):
        self._conversion, self._report = conversion, report
        self._seen: set[str] = set()
        self.name = conversion.description.name
        self.VERSION = tfds.core.Version(conversion.description.version)
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        about = self._conversion.description
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

    def _split_generators(self, dl_manager: Any) -> dict:
        return {split: self._generate_examples(split) for split in self._conversion.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        items = self._conversion.splits[split]
        kept = 0
        for item in tqdm.tqdm(items, desc=split, unit=" pictures"):
            for record in self._conversion.read(item, self._report):
                check_record(record)
                if record["image_id"] in self._seen:
                    raise ValueError(f"Two pictures have the image_id {record['image_id']!r}.")
                self._seen.add(record["image_id"])
                self._report.keep(split, record)
                kept += 1
                yield record["image_id"], record
        if not kept:
            dropped = "; ".join(
                f"{len(places)} dropped, {reason}: {places[0]}"
                for reason, places in self._report.dropped_pictures.items()
            )
            raise ValueError(
                f"Split {split!r} has no pictures, nothing was written. {dropped}".rstrip()
            )

    def _example_writer(self) -> writer.ExampleWriter:
        return _PlainTFRecordWriter(file_format=self.info.file_format)


class _PlainTFRecordWriter(writer.ExampleWriter):
    """Writes shards with our own framing instead of tf.io.TFRecordWriter."""

    def write(self, path: os.PathLike, examples: Iterable[tuple[Any, bytes]]) -> None:
        write_records(path, (stable_bytes(data) for _, data in examples))


def write_record_set(
    conversion: Conversion, out: str | os.PathLike, *, overwrite: bool = False
) -> Report:
    """Converts a data set into a record set on disk.

    Everything is written into a temporary directory beside `out` and renamed at the end, so a half
    written set never stands at `out`.

    Args:
      conversion: the data set.
      out: the directory of the record set (the tensorflow-datasets builder directory itself).
      overwrite: replace a record set that is there already.

    Returns:
      The report, which also lies in `out` as conversion.txt and conversion.json.

    Raises:
      FileExistsError: `out` exists and overwrite is False, or it is not a record set.
      ValueError: a split without pictures, two pictures of one id, or a record that breaks the
        schema.
    """
    out = Path(out)
    check_target(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    report = Report(conversion.description)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as staging:
        builder = RecordSetBuilder(conversion, report, data_dir=staging)
        _prepare(builder)
        built = Path(builder.data_dir)
        report.write(built)
        if out.exists():
            shutil.rmtree(out)
        os.rename(built, out)
    return report


def check_target(out: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError unless a record set may be written at `out`."""
    if not out.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{out} exists already: give --overwrite to replace it.")
    if not (out / "dataset_info.json").is_file():
        raise FileExistsError(
            f"{out} is not a record set (no dataset_info.json), so --overwrite leaves it alone: "
            "choose another --out."
        )


def _prepare(builder: RecordSetBuilder) -> None:
    # It announces a download and a place that is only temporary; the report says what happened.
    with contextlib.redirect_stdout(io.StringIO()), _plain_spill_files(), _no_inner_bars():
        builder.download_and_prepare(file_format="tfrecord")


@contextlib.contextmanager
def _plain_spill_files() -> Iterator[None]:
    """Lets tfds shuffle more than 1 GB without TensorFlow: its spill files become plain files."""
    # All spill files are open at once.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, shuffle.BUCKETS_NUMBER + _OTHER_FILES)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    gfile = SimpleNamespace(GFile=open, exists=os.path.exists, remove=os.remove)
    errors = SimpleNamespace(ResourceExhaustedError=_NeverRaised)
    before = shuffle.tf
    shuffle.tf = SimpleNamespace(io=SimpleNamespace(gfile=gfile), errors=errors)
    try:
        yield
    finally:
        shuffle.tf = before
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _NeverRaised(Exception):
    """Stands for a TensorFlow exception that plain files do not raise."""


@contextlib.contextmanager
def _no_inner_bars() -> Iterator[None]:
    """Hides the progress bars of tfds: ours counts pictures, and two would overwrite each other."""
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()
