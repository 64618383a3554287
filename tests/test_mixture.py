"""Mixtures of record sets: their shares of the stream, box rules, labels by name, the table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.spatial.transform import Rotation

from mtnet_jax.config import default_config, record_set
from mtnet_jax.data import stream
from mtnet_jax.data.batches import training_batches
from mtnet_jax.data.example import encode_record
from mtnet_jax.data.mixture import describe, open_sources, stream_weights
from mtnet_jax.data.records import RecordSource
from mtnet_jax.data.tfrecord import DamagedRecord, write_records
from tests.augmentation import NO_AUGMENTATION
from tests.batched import record


def write_set(
    path: Path,
    lengths: dict[str, int],
    *,
    labels=("head",),
    rule="head",
    poses=True,
    intrinsics=(0, 0, 0, 0),
):
    """A record set whose images hold one head each, of label i % len(labels)."""
    path.mkdir()
    for split, count in lengths.items():
        records = [
            record(
                [[10, 10, 30, 40]],
                image_id=f"{path.name} {split} {i}",
                has_pose=np.array([poses]),
                labels=np.array([i % len(labels)], np.int32),
                intrinsics=np.array(intrinsics, np.float32),
            )
            for i in range(count)
        ]
        shard = path / f"{path.name}-{split}.tfrecord-00000-of-00001"
        write_records(shard, map(encode_record, records))
    splits = [{"name": s, "shardLengths": [str(n)], "numBytes": "1"} for s, n in lengths.items()]
    info = {"name": path.name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": splits}
    (path / "dataset_info.json").write_text(json.dumps(info))
    (path / "metadata.json").write_text(json.dumps({"box_rule": rule, "label_names": labels}))
    return str(path)


def mixed(**sets: ConfigDict) -> ConfigDict:
    config = default_config()
    config.data = ConfigDict(sets)
    return config


def batches(config: ConfigDict, batch_size: int = 8, seed: int = 0):
    train_sources, _ = open_sources(config)
    return training_batches(
        list(train_sources.values()),
        stream_weights(config, train_sources),
        size=32,
        batch_size=batch_size,
        max_heads=2,
        options=NO_AUGMENTATION,
        seed=seed,
        threads=1,
    )


@pytest.mark.parametrize(("weight", "share"), [(1.0, 0.25), (2.0, 0.4), (0.5, 1 / 7), (6.0, 2 / 3)])
def test_the_stream_follows_the_weights(tmp_path, weight, share):
    """A weight is how often each image comes: 60 images at 1, 20 at `weight`."""
    config = mixed(
        boxes=record_set(write_set(tmp_path / "boxes", {"train": 60}, poses=False), eval_split=""),
        poses=record_set(
            write_set(tmp_path / "poses", {"train": 20}), eval_split="", weight=weight
        ),
    )
    stream = batches(config)
    seen = np.concatenate([next(stream)["has_pose"][:, 0] for _ in range(40)])
    assert seen.mean() == pytest.approx(share, abs=0.01)
    # Spread over the stream, not one set after the other.
    parts = seen.reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(parts, share, atol=0.02)
    table = describe(config, *open_sources(config)).splitlines()
    assert f"{100 * share:.1f} %" in table[2]
    assert f"{100 * (1 - share):.1f} %" in table[1]


def test_a_set_of_weight_0_is_not_opened(tmp_path):
    one = record_set(write_set(tmp_path / "one", {"train": 4}), eval_split="")
    train_sources, _ = open_sources(
        mixed(one=one, lost=record_set("lost", eval_split="", weight=0))
    )
    assert list(train_sources) == ["one"]


def test_a_set_without_records_is_named_with_the_cure(tmp_path):
    sets = {
        n: record_set(write_set(tmp_path / n, {"train": int(n == "b")}), eval_split="")
        for n in "ab"
    }
    with pytest.raises(ValueError, match=r"config\.data\.a: .* give it a weight of 0"):
        open_sources(mixed(**sets))
    sets["a"].weight = 0.0
    open_sources(mixed(**sets))


def test_both_kinds_of_sources_are_in_the_frame_of_the_configuration(tmp_path):
    """A head that looks along the axis, 15 pixels left of it and 10 above; focal length 30."""
    path = write_set(tmp_path / "a", {"train": 3, "test": 2}, intrinsics=(30, 30, 35, 35))
    config = mixed(a=record_set(path))
    for source in (opened["a"] for opened in open_sources(config)):
        np.testing.assert_array_equal(source[1]["rotations"], [np.eye(3)])
    config.frame = "ray"
    ray = np.array([-15, -10, 30]) / 35
    look = Rotation.align_vectors([0, 0, 1], ray)[0].as_matrix()
    for source in (opened["a"] for opened in open_sources(config)):
        np.testing.assert_allclose(source[1]["rotations"], [look], atol=1e-5)
    config.frame = "world"
    with pytest.raises(ValueError, match="Unknown frame 'world'"):
        open_sources(config)


def test_labels_become_classes_by_name(tmp_path):
    """Each set numbers its labels in its own order, and one renames."""
    orders = {
        "a": (("head", "helmet"), {}),
        "b": (("helmet", "head"), {}),
        "c": (("hard hat", "head"), {"hard hat": "helmet"}),
        "d": (("helmet",), {"helmet": "head"}),
    }
    config = mixed(
        **{
            name: record_set(
                write_set(tmp_path / name, {"train": 20}, labels=labels),
                eval_split="",
                labels=renamed,
            )
            for name, (labels, renamed) in orders.items()
        }
    )
    config.class_names = ("helmet", "head")
    train_sources, _ = open_sources(config)
    for name, (labels, renamed) in orders.items():
        raw = RecordSource(tmp_path / name, "train", decode=False)
        for i in range(20):
            own = labels[int(raw[i]["labels"][0])]
            (found,) = train_sources[name][i]["labels"]
            assert config.class_names[found] == renamed.get(own, own)
            assert train_sources[name][i]["labels"].dtype == np.int32
    seen = np.concatenate([next(stream)["labels"][:, 0] for stream in [batches(config, 80)]])
    assert np.bincount(seen).tolist() == [30, 50]


def test_unknown_labels_are_refused_with_the_cure(tmp_path):
    path = write_set(tmp_path / "a", {"train": 4}, labels=("head", "helmet"))
    with pytest.raises(ValueError, match=r"config\.data\.a .*'helmet'.*\{'helmet': 'head'\}"):
        open_sources(mixed(a=record_set(path, eval_split="")))
    with pytest.raises(ValueError, match=r"config\.data\.a\.labels renames \['hat'\]"):
        open_sources(mixed(a=record_set(path, eval_split="", labels={"hat": "head"})))
    open_sources(mixed(a=record_set(path, eval_split="", labels={"helmet": "head"})))


def test_a_label_without_a_name_is_named(tmp_path):
    path = Path(write_set(tmp_path / "a", {"train": 4}, labels=("head", "helmet")))
    (path / "metadata.json").write_text('{"box_rule": "head", "label_names": ["head"]}')
    source = open_sources(mixed(a=record_set(str(path), eval_split="")))[0]["a"]
    assert source[0]["labels"].tolist() == [0]
    with pytest.raises(DamagedRecord, match=r"record 1 .*'labels': \[1\] with 1 label name"):
        source[1]


def test_different_box_rules_are_refused_unless_allowed(tmp_path):
    heads = write_set(tmp_path / "heads", {"train": 4, "test": 2})
    faces = write_set(tmp_path / "faces", {"train": 4, "test": 2}, rule="face")
    config = mixed(heads=record_set(heads), faces=record_set(faces))
    with pytest.raises(ValueError, match=r"'face' in faces; 'head' in heads.*mix_box_rules=True"):
        open_sources(config)

    config.mix_box_rules = True
    text = describe(config, *open_sources(config))
    assert "WARNING: boxes of different rules are trained: 'face' in faces; 'head' in heads" in text

    only_evaluated = mixed(heads=record_set(heads), faces=record_set(faces, weight=0))
    text = describe(only_evaluated, *open_sources(only_evaluated))
    assert "WARNING: faces: boxes by the rule 'face', which no training set follows" in text

    one_rule = mixed(heads=record_set(heads))
    assert "WARNING" not in describe(one_rule, *open_sources(one_rule))


@pytest.mark.parametrize(("frame", "share"), [("camera", 0.5), ("camera", 0.0), ("ray", 0.5)])
def test_packed_inputs_of_known_cameras_are_warned_of(tmp_path, frame, share):
    for name, intrinsics in (("dome", (50, 50, 32, 24)), ("photos", (0, 0, 0, 0))):
        write_set(tmp_path / name, {"train": 2}, intrinsics=intrinsics)
    sets = {name: record_set(str(tmp_path / name), eval_split="") for name in ("dome", "photos")}
    config = mixed(**sets)
    config.frame, config.pack.share = frame, share
    text = describe(config, *open_sources(config))
    wrong = frame == "camera" and share > 0
    assert ("WARNING: dome: rotations are relative to a known camera" in text) == wrong
    assert ("set config.frame = 'ray'" in text) == wrong


def test_the_table_says_what_is_trained_and_evaluated(tmp_path):
    """The demo records, with the report of their conversion, and a set without one."""
    demo = Path(__file__).resolve().parent.parent / "demo" / "studio_demo"
    path = shutil.copytree(demo, tmp_path / "demo")
    plain = write_set(tmp_path / "plain", {"train": 350}, poses=False)
    config = mixed(demo=record_set(str(path), weight=1.5), plain=record_set(plain, eval_split=""))
    rows = [" ".join(line.split()) for line in describe(config, *open_sources(config)).splitlines()]
    assert rows[0] == "set split images heads with pose weight share box rule"
    assert rows[1] == "train demo train 700 847 847 1.5 75.0 % head"
    assert rows[2] == "train plain train 350 - - 1 25.0 % head"
    assert rows[3] == "evaluate demo test 150 176 176 head"
    assert len(rows) == 4


def test_the_stream_is_what_the_configuration_says(monkeypatch, tmp_path):
    config = mixed(a=record_set(write_set(tmp_path / "a", {"train": 3}), weight=2, eval_split=""))
    config.input.size, config.input.max_heads = 96, 7
    config.augment.turn, config.pack.share = 3.0, 0.25
    config.loader_threads, config.loader_processes = 5, 4
    asked = {}

    def recorded(sources, weights, **options):
        asked.update(options, sources=[len(source) for source in sources], weights=weights)

    monkeypatch.setattr(stream, "training_batches", recorded)
    sources, _ = open_sources(config)
    packer = stream.packer_of(config, sources)
    assert packer.options.share == 0.25
    stream.training_stream(config, sources, batch_size=6, seed=11, packer=packer, host=1, hosts=2)
    assert (asked.pop("sources"), asked.pop("weights")) == ([3], [6.0])
    assert asked.pop("options").turn == 3.0
    assert asked.pop("packer") is packer
    assert asked == {
        **{"size": 96, "batch_size": 6, "max_heads": 7, "seed": 11, "host": 1, "hosts": 2},
        **{"threads": 5, "processes": 4},
    }
