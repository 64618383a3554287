"""Every format of `mtnet export` is written, read back, and finds what JAX finds."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

from benchmarks.exports import BEGIN, END, parity, table
from mtnet_jax import Predictor
from mtnet_jax.cli import export as export_command
from mtnet_jax.cli import main
from mtnet_jax.errors import BadInput, MissingFile
from mtnet_jax.evaluation import run
from mtnet_jax.evaluation.metrics import evaluate
from mtnet_jax.export import safetensors_file, stablehlo
from mtnet_jax.export.card import license_in
from mtnet_jax.export.folder import export
from mtnet_jax.export.formats import FORMATS
from mtnet_jax.page.build import model_of
from mtnet_jax.places import files_below
from mtnet_jax.predict.placing import letterboxed
from mtnet_jax.predict.predictor import read_image
from mtnet_jax.shipped import weights_folder
from mtnet_jax.sums import SUMS
from mtnet_jax.weights import flat_arrays, load_weights, metadata_of, write_weights
from tests.conftest import REPOSITORY
from tests.tiny import SCORE

pytest.importorskip("onnx", reason="needs the exports' packages: pip install -e '.[export]'")

# The others are tests/test_tensorflow_exports.py's.
HERE = tuple(name for name, form in FORMATS.items() if form.extra == "export")
IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))


def demo_inputs(size: int) -> np.ndarray:
    return np.stack([letterboxed(read_image(path), size)[0] for path in IMAGES])


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The weights that ship, in every format."""
    folder = tmp_path_factory.mktemp("exported") / "all"
    inputs = demo_inputs(load_weights(weights_folder())[0].input.size)
    export(
        weights_folder(),
        folder,
        formats=HERE,
        half=True,
        license="MIT",
        calibration=inputs,
    )
    return folder


def test_every_format_finds_what_jax_finds(exported):
    """On the demo's images, at a low threshold, and on noise, where few heads are."""
    size = load_weights(exported)[0].input.size
    noise = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    results = parity(exported, np.concatenate([demo_inputs(size), noise]), rounds=0)
    assert [r.name for r in results] == ["npz", *HERE]
    assert results[0].heads >= len(IMAGES)
    for result in results:
        if result.name == "onnx-int8":  # what it loses is measured on record sets
            assert result.found >= result.heads - 1
            continue
        assert (result.found, result.extra) == (result.heads, 0), result
        assert result.box < 0.01, result
        assert result.degrees < 0.01, result


def test_the_table_of_the_documentation_has_every_format():
    page = (REPOSITORY / "docs" / "export.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \|", page.split(BEGIN)[1].split(END)[0], re.MULTILINE)
    assert rows == ["npz", *FORMATS]
    assert table([]).splitlines()[0] in page


@pytest.mark.parametrize("name", ["weights.safetensors", "orbax"])
def test_arrays_come_back_as_they_were(exported, name):
    config, variables = load_weights(exported)
    again, read = load_weights(exported / name)
    assert again.to_dict() == config.to_dict()
    expected, found = flat_arrays(variables), flat_arrays(read)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    "name", ["", "weights.safetensors", "orbax", "heads.onnx", "heads-int8.onnx"]
)
def test_the_predictor_reads_it(exported, name):
    predictor = Predictor.load(exported / name)
    assert predictor.runtime == (
        "jax" if name in ("weights.safetensors", "orbax") else "onnxruntime"
    )
    (head,) = predictor(IMAGES[0])
    (expected,) = Predictor(exported, runtime="jax")(IMAGES[0])
    loose = 10 if "int8" in name else 0.01
    np.testing.assert_allclose(head.box, expected.box, atol=loose)


def test_stablehlo_runs_with_jax_alone(exported, tmp_path):
    """In a process that never sees this package."""
    size = load_weights(exported)[0].input.size
    np.save(tmp_path / "images.npy", demo_inputs(size)[:3])
    code = f"""
import sys, numpy as np, jax, jax.export
exported = jax.export.deserialize(open({str(exported / "heads.stablehlo")!r}, "rb").read())
assert exported.platforms == ("cpu", "cuda", "tpu")
images = np.load("images.npy")
for batch in (1, 3):
    heads = jax.jit(exported.call)(images[:batch], np.float32(0.3), np.float32(0.5))
    print(*np.asarray(heads["valid"]).sum(axis=1))
assert not any("mtnet" in name for name in sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == ["1", "1 1 1"]


def test_stablehlo_gives_what_the_documentation_says(weights, tmp_path):
    stablehlo.write(tmp_path / "it", *load_weights(weights))
    exported = jax.export.deserialize((tmp_path / "it").read_bytes())
    given = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert {name: value.dtype.name for name, value in given.items()} == {
        "boxes": "float32",
        "scores": "float32",
        "labels": "int32",
        "rotations": "float32",
        "valid": "bool",
    }


def test_the_card_says_what_the_weights_are(exported):
    text = (exported / "README.md").read_text()
    assert text.startswith("---\nlicense: mit\nlibrary_name: mtnet_jax\n")
    for name in HERE:
        assert f"`{FORMATS[name].file}`" in text
    for section in ("Conventions", "Training data", "Licence", "Measured", "Limits"):
        assert f"## {section}\n" in text
    assert f"Frame `{load_weights(exported)[0].frame}`" in text


def test_the_card_has_data_and_metrics_of_a_work_directory(weights, tmp_path):
    source = tmp_path / "run"
    export(weights, source)
    config = json.loads((source / "config.json").read_text())
    config["data"] = {
        "mine": {"train_split": "train", "weight": 2.0},
        "evaluated": {"train_split": "", "weight": 1.0},
        "left_out": {"train_split": "train", "weight": 0.0},
    }
    config["init"] = {"weights": "/home/somebody/runs/old", "darknet_weights": ""}
    (source / SUMS).unlink()  # it is changed on purpose
    (source / "config.json").write_text(json.dumps(config))
    (source / "eval" / "mine-test").mkdir(parents=True)
    (source / "eval" / "mine-test" / "evaluation.txt").write_text("mine/test: 9\n\nAP50 12.3%\n")
    for name, said in (
        ("fits", {"step": None, "size": 64}),
        ("other-step", {"step": 7, "size": 64}),
        ("other-size", {"step": None, "size": 96}),
        ("of-a-peer", {}),
        ("of-8-bits", {"weights": "out/heads-int8.onnx", "step": None, "size": 64}),
    ):
        (source / "eval" / name).mkdir()
        (source / "eval" / name / "evaluation.txt").write_text(f"of {name}\n\nAP50 1 %\n")
        network = {"network": {"settings": {"weights": "somewhere", **said}}}
        (source / "eval" / name / "evaluation.json").write_text(json.dumps(network))
    export(source, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Record sets: mine.\nBegan with the weights `runs/old`: what trained them" in text
    assert "somebody" not in text
    assert "mine/test: 9\n\n```\nAP50 12.3%\n```" in text
    assert re.findall("of (fits|other-step|other-size|of-a-peer|of-8-bits)\n", text) == ["fits"]
    assert "data" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_the_licence_goes_with_the_weights(weights, tmp_path):
    assert license_in(weights_folder()) == "apache-2.0"
    assert license_in(weights) is None
    first = tmp_path / "first"
    export(weights, first, formats=["safetensors"], license="MIT")
    for number, source in enumerate((first, first / "weights.safetensors")):
        out = tmp_path / str(number)
        export(source, out, formats=["orbax"])
        assert metadata_of(out / "orbax")["license"] == license_in(out) == "MIT"
    (first / "weights.safetensors").unlink()
    assert model_of(first)[1]["licence"] == "MIT"  # exported on the way


def test_all_files_of_a_folder_have_one_licence(weights, tmp_path):
    out, words = tmp_path / "out", "CC BY-NC 4.0: research only"
    export(weights, out, formats=["orbax"], license=words)
    export(weights, out, formats=["safetensors"])
    said = [metadata_of(out / name)["license"] for name in ("orbax", "weights.safetensors")]
    assert said == [words, words]
    card = (out / "README.md").read_text()
    assert card.startswith(f'---\nlicense: other\nlicense_name: "{words}"\nlibrary_name: ')
    (out / "README.md").unlink()  # as one that was edited is to be moved away
    export(weights, out, formats=["safetensors"])
    assert (out / "README.md").read_text() == card
    assert (out / "orbax").exists()
    export(weights, out, formats=["safetensors"], license="MIT")
    assert not (out / "orbax").exists()
    assert metadata_of(out / "weights.safetensors")["license"] == "MIT"
    config, variables = load_weights(weights)
    variables["params"]["face"]["scale1"]["bias"] += 1.0
    write_weights(tmp_path / "later", config, variables)
    export(tmp_path / "later", out)  # of which nobody said a licence
    assert license_in(out) == ""


# --- what does not fit ---------------------------------------------------------------------------


def test_a_stale_file_is_not_used(weights, tmp_path):
    """An exported file beside weights that came later would give the heads of the earlier ones."""
    export(weights, tmp_path / "out", formats=["onnx"])
    assert Predictor(tmp_path / "out", score_threshold=SCORE).runtime == "onnxruntime"
    config, variables = load_weights(weights)
    variables["params"]["face"]["scale1"]["bias"] += 1.0
    write_weights(tmp_path / "out", config, variables)
    with pytest.warns(UserWarning, match="made of other weights.*export it again"):
        assert Predictor(tmp_path / "out", score_threshold=SCORE).runtime == "jax"


def test_a_changed_configuration_is_not_ignored(weights, tmp_path):
    """What is changed in config.json would be of no effect in an exported file beside it."""
    out = tmp_path / "out"
    export(weights, out, formats=["onnx"])
    (out / SUMS).unlink()  # it is changed on purpose
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config))  # in other lines
    assert Predictor(out).runtime == "onnxruntime"
    (out / "config.json").write_text(json.dumps({**config, "class_names": ["face"]}))
    with pytest.warns(UserWarning, match=r"with another configuration than .*export it again"):
        changed = Predictor(out)
    assert (changed.runtime, changed.class_names) == ("jax", ("face",))
    (out / "config.json").write_text("{half")
    with pytest.raises(BadInput, match=r"config\.json is not valid JSON"):
        Predictor(out)


def test_files_of_other_weights_do_not_stay_beside_new_ones(weights, tmp_path, capsys):
    """Of the same weights, one format after another may come. `SHA256SUMS` has what is there."""
    out = tmp_path / "out"

    def run(source, name, *words) -> set[str]:
        command = ["export", "--workdir", str(source), "--out", str(out), "--format", name]
        assert main([*command, *words]) == 0
        files = [form.file for form in FORMATS.values()]
        noted = [line.split("  ")[1] for line in (out / SUMS).read_text().splitlines()]
        assert {*noted} >= {file for file in files_below(out) if file.split("/")[0] in files}
        assert all((out / name).exists() for name in noted)
        there = {name for name in files if (out / name).exists()}
        card = (out / "README.md").read_text()
        assert {name for name in files if f"| `{name}` |" in card} == there
        return there

    assert run(weights, "orbax") == {"orbax"}
    assert run(weights, "safetensors") == {"orbax", "weights.safetensors"}
    config, variables = load_weights(weights)
    variables["params"]["face"]["scale1"]["bias"] += 1.0
    write_weights(tmp_path / "later", config, variables)
    capsys.readouterr()
    assert run(tmp_path / "later", "onnx-network") == {"network.onnx"}
    said = capsys.readouterr().out
    assert f"{out / 'orbax'} was of other weights or options, and is gone" in said
    # The same arrays for inputs of another size are another network.
    assert run(tmp_path / "later", "safetensors", "--size", "96") == {"weights.safetensors"}


def test_an_export_that_is_cut_short_leaves_no_files_of_other_weights(
    monkeypatch, weights, tmp_path
):
    out = tmp_path / "out"
    export(weights, out, formats=["orbax"])
    config, variables = load_weights(weights)
    variables["params"]["face"]["scale1"]["bias"] += 1.0
    write_weights(tmp_path / "later", config, variables)
    with monkeypatch.context() as patch:
        patch.setattr(safetensors_file, "write", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export(tmp_path / "later", out, formats=["onnx-network", "safetensors"])
    noted = [line.split("  ")[1] for line in (out / SUMS).read_text().splitlines()]
    assert noted == ["config.json", "network.onnx", "weights.npz"]
    export(tmp_path / "later", out, formats=["safetensors"])
    assert not (out / "orbax").exists()


def test_arrays_cannot_be_had_from_a_file_that_runs(exported, tmp_path, capsys):
    words = ["export", "--workdir", str(exported / "heads.onnx"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "give the folder that it was exported into" in capsys.readouterr().err


def test_everybody_who_may_read_one_format_may_read_the_others(exported):
    modes = {path.stat().st_mode for path in exported.iterdir() if path.is_file()}
    assert len(modes) == 1


def test_eight_bits_need_images(weights, tmp_path):
    with pytest.raises(BadInput, match="--images"):
        export(weights, tmp_path / "out", formats=["onnx-int8"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("gone.onnx", None, MissingFile, "gone.onnx"),
        ("bad.onnx", b"no model", BadInput, "bad.onnx"),
        ("gone.safetensors", None, MissingFile, "gone.safetensors"),
        ("bad.safetensors", b"no tensors", BadInput, "bad.safetensors is damaged"),
    ],
)
def test_files_that_are_not_weights_are_named(tmp_path, name, content, error, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said):
        Predictor(tmp_path / name)


def test_the_bare_network_is_no_predictor(exported):
    with pytest.raises(BadInput, match=r"network\.onnx gives predictions: .*--format onnx"):
        Predictor(exported / "network.onnx")


def test_a_file_has_one_size_and_one_runtime(exported):
    with pytest.raises(BadInput, match="export it again with --size 640"):
        Predictor(exported / "heads.onnx", size=640)
    with pytest.raises(BadInput, match="for onnxruntime"):
        Predictor(exported / "heads.onnx", runtime="jax")


def test_eight_bits_are_measured_on_records(weights, tmp_path, capsys):
    words = ["export", "--workdir", str(weights), "--out", str(tmp_path / "out")]
    data = str(REPOSITORY / "demo" / "studio_demo")
    assert main([*words, "--format", "onnx-int8", "--images", str(IMAGES[0]), "--data", data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "AP50" in lines[-3]
    assert re.search(r"heads-int8\.onnx +[\d.]+% +[\d.]+% +[\d.]+°", lines[-1])


def test_a_set_without_heads_has_no_numbers_to_show(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run, "measure", lambda *_: evaluate([]))
    export_command._compare(tmp_path / "folder", [], [(tmp_path, "test")])
    assert capsys.readouterr().out.splitlines()[-1].split() == ["folder", "-", "-", "-"]


def test_stablehlo_multiplies_float32_in_float32_everywhere(weights, tmp_path):
    """Of itself a TPU would take bfloat16 for it, and a GPU TF32."""
    stablehlo.write(tmp_path / "it", *load_weights(weights))
    text = jax.export.deserialize((tmp_path / "it").read_bytes()).mlir_module()
    products = re.findall(r"stablehlo\.(?:convolution|dot_general).*", text)
    assert len(products) > 50
    assert [line for line in products if line.count("HIGHEST") != 2] == []


def test_options_that_change_nothing_in_a_format_are_named(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export_command, "_compare", lambda *_: None)
    plain, half = tmp_path / "plain", tmp_path / "half"
    command = ["export", "--workdir", str(weights), "--format", "safetensors", "onnx-network"]
    assert main([*command, "--out", str(plain)]) == 0
    assert "--half" not in capsys.readouterr().out
    data = ["--data", str(REPOSITORY / "demo" / "studio_demo")]
    assert main([*command, "--out", str(half), "--half", *data]) == 0
    said = capsys.readouterr().out
    assert "--half makes no smaller: weights.safetensors (" in said
    assert "--data is not measured on: weights.safetensors, network.onnx (" in said
    for name in ("safetensors", "onnx-network"):
        sizes = [(folder / FORMATS[name].file).stat().st_size for folder in (plain, half)]
        assert (sizes[1] < 0.9 * sizes[0]) == FORMATS[name].halves
