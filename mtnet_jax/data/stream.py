"""The training batches that a configuration asks for."""

from collections.abc import Mapping

import grain
from ml_collections import ConfigDict

from mtnet_jax.data.augment import AugmentOptions
from mtnet_jax.data.batches import training_batches
from mtnet_jax.data.mixture import stream_weights
from mtnet_jax.data.packing import Packer, PackOptions, make_packer
from mtnet_jax.data.records import RecordSource


def packer_of(config: ConfigDict, train_sources: Mapping[str, RecordSource]) -> Packer | None:
    """What packs images as a configuration says, None where it packs none.

    It reads every training record, and serves all streams of a run.
    """
    return make_packer(
        list(train_sources.values()),
        stream_weights(config, train_sources),
        PackOptions(**config.pack),
        AugmentOptions(**config.augment),
    )


def training_stream(
    config: ConfigDict,
    train_sources: Mapping[str, RecordSource],
    *,
    batch_size: int,
    seed: int,
    packer: Packer | None,
    host: int = 0,
    hosts: int = 1,
) -> grain.DatasetIterator:
    """The batches that a configuration asks for, see `batches.training_batches`.

    Args:
      config: input, augmentation, weights of the sets, threads and processes are of it.
      train_sources: from `open_sources`.
      batch_size: images a batch, of all hosts together.
      seed: of order and augmentation.
      packer: from `packer_of`.
      host: number of this host.
      hosts: how many share each batch.
    """
    return training_batches(
        list(train_sources.values()),
        stream_weights(config, train_sources),
        size=config.input.size,
        batch_size=batch_size,
        max_heads=config.input.max_heads,
        options=AugmentOptions(**config.augment),
        seed=seed,
        threads=config.loader_threads,
        processes=config.loader_processes,
        packer=packer,
        host=host,
        hosts=hosts,
    )
