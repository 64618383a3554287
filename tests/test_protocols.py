"""The paper's protocols: from raw folders, written by the studio, to the tables; and their rows."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from data_prep.sets import biwi
from mtnet_jax.cli import main
from mtnet_jax.config import load_config
from mtnet_jax.data.records import RecordSource
from mtnet_jax.errors import BadInput, Failed
from mtnet_jax.evaluation.metrics import evaluate
from mtnet_jax.protocols import plan, published, steps
from mtnet_jax.protocols.steps import raw_option, run_protocol
from mtnet_jax.protocols.table import Measured, as_json, format_table
from tests.conftest import REPOSITORY

TABLES = ("BIWI", "BIWI_70_30", "CMU", "AFLW2000", "CMU_HPE")

TINY = """
from ml_collections import ConfigDict

from mtnet_jax.config import phase, starting_from


def get_config():
    config = starting_from("{name}")
    config.model.width, config.model.depth = 0.01, 0.01
    config.input.size, config.input.max_heads = 64, 6
    config.phases = ConfigDict()
    config.phases.a = phase(("face",), epochs=1, batch_size=4, learning_rate=1e-3, alpha=1)
    everything = ("backbone", "neck", "face", "pose")
    config.phases.b = phase(everything, epochs=1, batch_size=4, learning_rate=1e-3)
    return config
"""


# One that learns enough of 16 images, in 160 steps, to find some heads in the others.
LEARNS = """
from ml_collections import ConfigDict

from mtnet_jax.config import phase, starting_from


def get_config():
    config = starting_from("{name}")
    config.model.width, config.model.depth = 0.03, 0.01
    config.input.size, config.input.max_heads = 64, 6
    config.augment.scale_min, config.augment.scale_max = 0.9, 1.1
    config.augment.shift, config.augment.turn = 0.05, 5.0
    config.phases = ConfigDict()
    config.phases.a = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=80,
        batch_size=8,
        learning_rate=3e-3,
        warmup_steps=10,
        alpha=0.7,
    )
    config.clip_norm = 30.0
    return config
"""


@pytest.mark.parametrize("table", TABLES)
def test_means_are_those_of_the_angles_and_of_the_documentation(table):
    """The tables of docs/evaluation.md were typed from the papers before these rows were."""
    text = (REPOSITORY / "docs" / "evaluation.md").read_text()
    documented = set(re.findall(r"(?<=\| )(\d+\.\d\d)(?= \|)", text))
    for row in getattr(published, table):
        angles = (row.yaw, row.pitch, row.roll)
        if None not in angles:
            assert sum(angles) / 3 == pytest.approx(row.mae, abs=0.011), row
        assert f"{row.mae:.2f}" in documented, row
        assert row.source


def test_each_configuration_states_the_paper_and_the_number_to_beat():
    for number in (1, 2, 3):
        protocol = plan.protocol(number)
        text = (REPOSITORY / "configs" / f"{protocol.config}.py").read_text()
        config, paper = load_config(protocol.config), load_config("paper")
        for section in ("model", "input", "phases", "pose_loss", "augment"):
            assert config[section].to_dict() == paper[section].to_dict()
        assert set(config.data) < {each.name for each in protocol.needed} | {"none"}
        (vectors,) = (r for r in protocol.needed[-1].test.rows if r.method.endswith("vectors"))
        assert f"{vectors.yaw:.2f}, {vectors.pitch:.2f}, {vectors.roll:.2f}" in text
        assert raw_option(protocol.needed[0].converter) in text


def test_the_table_shows_both_pairings_beside_the_published_rows():
    results = {name: evaluate([], protocol=name) for name in ("matched", "authors")}
    measured = Measured(plan.protocol(2).needed[0].test, results, "head", "camera")
    text = format_table(measured)
    assert re.search(r"Multitask-Net v2, vectors +5.33 +3.90 +3.28 +4.17 +IoU 63.6 +-", text)
    assert re.search(r"6DRepNet +- +- +- +2.66 +- +crops", text)
    assert re.search(r"this run, matched +- +- +- +- ", text)
    assert re.search(r"this run, authors +- +- +- +- ", text)
    assert "boxes by the rule 'head', rotations in the frame 'camera'" in text
    assert "3 of its 8 show people who are trained on" in " ".join(text.split())
    assert json.loads(as_json([measured]))[0]["published"][0]["method"] == "FSA-Net"


def test_the_table_says_how_many_images_the_authors_pairing_left_out():
    found = {"boxes": np.array([[0.0, 0, 9, 9]]), "rotations": np.eye(3)[None]}
    truth = {**found, "has_pose": np.ones(1, bool), "ignore": np.zeros(1, bool)}
    missed = {"boxes": np.zeros((0, 4)), "rotations": np.zeros((0, 3, 3)), "scores": np.zeros(0)}
    pairs = [({**found, "scores": np.ones(1)}, truth), *[(missed, truth)] * 9]
    results = {name: evaluate(pairs, protocol=name) for name in ("matched", "authors")}
    test = plan.protocol(2).needed[0].test
    matched, authors = (
        line.rstrip()
        for line in format_table(Measured(test, results, "head", "camera")).splitlines()
        if line.startswith("this run")
    )
    assert matched.endswith(" 10.0")
    assert authors.endswith("100.0; 9 images left out")


def test_what_is_missing_or_does_not_belong_is_said(tmp_path, capsys):
    def fails(*words) -> str:
        assert main(["protocol", *words, "--workdir", str(tmp_path / "work")]) == 1
        return capsys.readouterr().err

    raw = tmp_path / "raw"
    raw.mkdir()
    assert "needs raw folders: --raw300wlp DIR --rawbiwi DIR" in fails("1")
    assert "no part for panoptic" in fails("2", "--rawbiwi", str(raw), "--rawpanoptic", str(raw))
    assert "belongs to protocol 2" in fails("3", "--subject-disjoint")
    twice = ("--convert=biwi=--x 1", "--convert=biwi=--y 1")
    assert "names a set twice" in fails("2", "--rawbiwi", str(raw), *twice)
    convert = "--convert=other=--x 1"
    assert "the sets here are biwi" in fails("2", "--rawbiwi", str(raw), convert)
    assert "'wide'" in fails("2", "--rawbiwi", str(raw), "--config.model.wide=1")
    assert "trains on its own" in fails("2", "--rawbiwi", str(raw), "--config", "small")
    assert "conversion of" in fails("2", "--rawbiwi", str(raw))  # nothing in it
    with pytest.raises(BadInput, match="needs raw folders"):
        run_protocol(plan.protocol(3), {}, tmp_path)


def test_records_with_faults_are_not_trained_on_by_the_same_command_again(monkeypatch, tmp_path):
    raw, records, faults = tmp_path / "raw", tmp_path / "records" / "biwi", [1, 1, 0]
    checks = []

    def convert(arguments) -> int:
        Path(arguments.out).mkdir(parents=True)
        return 0

    def check(folders) -> int:
        checks.append(folders)
        return faults[len(checks) - 1]

    def make() -> None:
        steps._make(plan.protocol(2).needed[0], raw, records, tmp_path / steps.MADE, (), 1)

    monkeypatch.setattr(steps.convert, "run", convert)
    monkeypatch.setattr(steps, "print_check", check)
    for _ in range(2):
        with pytest.raises(Failed, match="has faults"):
            make()
    records.rmdir()  # as the message says
    make()
    make()
    assert len(checks) == 3


# From end to end


def studio(assets, out, layout, *words):
    command = ["studio", "--assets", str(assets), "--out", str(out), "--layout", layout]
    assert main([*command, "--processes", "1", *words]) == 0
    return out


def protocol(folder, number, *words, template=TINY) -> int:
    config = folder / f"tiny{number}.py"
    config.write_text(template.format(name=f"protocol{number}"))
    command = ["protocol", str(number), "--workdir", str(folder / "work"), "--config", str(config)]
    return main([*command, *words])


def tables(folder) -> list[dict]:
    return json.loads((folder / "work" / "table.json").read_text())


@pytest.fixture(scope="module")
def kinect(assets_dir, tmp_path_factory):
    pytest.importorskip("vtkmodules", reason="mtnet studio is an extra")
    folder = tmp_path_factory.mktemp("biwi")
    return studio(assets_dir, folder / "raw", "biwi", "--frames", "24", "--size", "128x96")


@pytest.mark.slow
def test_protocol_1_from_raw_data_to_its_table(assets_dir, kinect, tmp_path, capsys):
    words = ("--frames", "8", "--size", "96x96")
    faces = studio(assets_dir, tmp_path / "faces", "w300lp", *words)
    others = studio(assets_dir, tmp_path / "others", "w300lp", *words, "--seed", "5")
    raw = ["--raw300wlp", str(faces), "--rawbiwi", str(kinect), "--rawaflw2000", str(others)]
    assert protocol(tmp_path, 1, *raw) == 0
    printed = capsys.readouterr().out
    assert "== mtnet data convert biwi" in printed
    assert "== mtnet data check" in printed
    assert (tmp_path / "work" / "table.txt").read_text().rstrip() in printed
    first, second = tables(tmp_path)
    assert first["test"].startswith("Table 1")
    for table, images in ((first, 24), (second, 8)):
        matched, authors = table["results"]["matched"], table["results"]["authors"]
        assert matched["counts"]["images"] == matched["counts"]["truths_with_pose"] == images
        assert authors["counts"]["images"] + authors["counts"]["images_skipped"] == images
        assert table["box_rule"] == "head"
        assert math.isfinite(matched["detection"]["ap50"])
    saved = json.loads((tmp_path / "work" / "run" / "config.json").read_text())
    assert saved["data"]["w300_lp"]["path"] == str(tmp_path / "work" / "records" / "w300_lp")
    # Once more: nothing is made again, and the numbers are the same.
    assert protocol(tmp_path, 1, *raw) == 0
    again = capsys.readouterr().out
    assert "== mtnet data convert" not in again
    assert tables(tmp_path) == [first, second]
    assert protocol(tmp_path, 1, *raw, "--convert=biwi=--box-rule sphere") == 1
    assert "made by other options" in capsys.readouterr().err


@pytest.mark.slow
def test_protocol_2_splits_by_people(kinect, tmp_path, capsys):
    words = ("--rawbiwi", str(kinect), "--subject-disjoint")
    assert protocol(tmp_path, 2, *words, template=LEARNS) == 0
    (table,) = tables(tmp_path)
    result = table["results"]["matched"]
    assert result["counts"]["images"] == 8
    assert result["detection"]["ap50"] > 0.05
    printed = capsys.readouterr().out
    assert "Harder than the published rows" in printed
    # The row of the table is the report's.
    report = tmp_path / "work" / "eval" / "biwi-test" / "evaluation.json"
    assert json.loads(report.read_text())["network"] == result
    angles = [f"{result['pose'][k]:.2f}" for k in ("yaw", "pitch", "roll", "mae")]
    assert f"this run, matched {' '.join(angles)} IoU" in " ".join(printed.split())
    records = tmp_path / "work" / "records" / "biwi"
    source = RecordSource(records, "test", decode=False)
    found = {int(source[i]["image_id"].split("/")[0]) for i in range(len(source))}
    assert found == set(biwi.TEST_SEQUENCES["subject-disjoint"])


@pytest.mark.slow
def test_protocol_3_on_several_people_an_image(assets_dir, tmp_path, capsys):
    pytest.importorskip("vtkmodules", reason="mtnet studio is an extra")
    words = ("--frames", "3", "--test-frames", "2", "--cameras", "2", "--people", "2-3")
    raw = studio(assets_dir, tmp_path / "raw", "panoptic", *words, "--size", "160x90")
    names = sorted(path.name for path in raw.iterdir() if path.is_dir())
    train, test = ([n for n in names if f"_{split}" in n] for split in ("train", "test"))
    options = f"--train-sequences {','.join(train)} --test-sequences {','.join(test)}"
    options += " --min-file-size 0 --keep-empty"
    command = ("--rawpanoptic", str(raw), f"--convert=panoptic={options}")
    assert protocol(tmp_path, 3, *command) == 0
    (table,) = tables(tmp_path)
    counts = table["results"]["matched"]["counts"]
    assert counts["images"] == 4
    assert counts["truths_with_pose"] > 4
    assert table["box_rule"].startswith("sphere")
    assert "62.31" in capsys.readouterr().out
