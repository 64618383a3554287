"""The options of a run: what is out of range, what may change in a later one."""

import shutil

import pytest

from mtnet_jax.config import default_config, phase, record_set
from mtnet_jax.data.records import RecordSource
from mtnet_jax.errors import BadInput
from mtnet_jax.saved_config import read_config, write_config
from mtnet_jax.training.config_changes import differences, how_it_runs
from mtnet_jax.training.loop import train
from mtnet_jax.training.option_checks import check_values
from mtnet_jax.training.workdir import RECORDS, Reached, claim, identities
from tests.tiny import DEMO_RECORDS, tiny_config

AT_A, AT_B = (Reached(phase, 2, (3, 3)) for phase in (0, 1))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("log_every_steps", 0, "at least 1"),
        ("save_every_steps", -5, "at least 1"),
        ("keep_checkpoints", 0, "at least 1"),
        ("loader_threads", 0, "at least 1"),
        ("eval_every_epochs", -1.0, "not be negative"),
        ("phases.a.epochs", -1.0, "not be negative"),
        ("phases.b.learning_rate", -1.0, "above 0"),
        ("phases.b.learning_rate", float("nan"), "finite"),
        ("phases.a.batch_size", 0, "at least 1"),
        ("phases.b.loss.alpha", 1.5, "from 0 to 1"),
        ("clip_norm", float("inf"), "finite"),
        ("data.demo.weight", -1.0, "not be negative"),
        ("model.width", 0.0, "above 0"),
        ("decode.iou_threshold", 2.0, "from 0 to 1"),
        ("input.max_heads", 0, "at least 1"),
        ("seed", 2**63, "below 2 to the power of 63"),
        ("class_names", (), "one name or more"),
        ("class_names", ("head", "head"), "none of them twice"),
        ("class_names", ("head", 1), "one name or more"),
    ],
)
def test_options_out_of_range_are_named_before_anything_is_claimed(tmp_path, name, value, said):
    config = tiny_config()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(BadInput, match=rf"config\.{name} is .*{said}"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "name", "value", "said"),
    [
        ("data.demo", "path", DEMO_RECORDS, "a text"),
        ("data.demo", "weight", "2", "a number"),
        ("phases.a", "batch_size", "4", "a whole number"),
        ("phases.a", "warmup_steps", 1.5, "a whole number"),
        ("phases.a", "trainable", "face", "a tuple"),
        ("phases.a.loss", "alpha", None, "a number"),
        ("", "seed", None, "a whole number"),
        ("", "mix_box_rules", None, "True or False"),
    ],
)
def test_values_of_another_kind_are_named(tmp_path, section, name, value, said):
    config = tiny_config()
    within = config
    for part in filter(None, section.split(".")):
        within = within[part]
    with within.ignore_type():  # as `record_set` and `phase` take whatever they are given
        within[name] = value
    option = f"{section}.{name}".lstrip(".")
    with pytest.raises(BadInput, match=rf"config\.{option} is .*: it must be {said}\."):
        train(config, tmp_path / "run")


def test_no_value_is_as_good_as_none_of_what_is_off():
    config = tiny_config()
    config.clip_norm = config.ema_decay = config.data.demo.eval_split = None
    check_values(config)


def test_the_defaults_are_in_range():
    check_values(default_config())
    check_values(tiny_config())


def test_a_run_of_nothing_is_refused(tmp_path):
    config = tiny_config()
    config.phases.a.epochs = config.phases.b.epochs = 0.0
    with pytest.raises(BadInput, match=r"every phase of config\.phases has 0 epochs"):
        train(config, tmp_path / "run")


# --- what may change -----------------------------------------------------------------------------


def test_options_that_an_older_configuration_lacks_have_their_defaults():
    old, new = tiny_config(), tiny_config()
    for tree, name in (
        (old, "frame"),
        (old, "pack"),
        (old.augment, "coarse"),
        (old.model, "remat"),
        (old.data.demo, "labels"),
        (old.phases.a.loss, "heading"),
    ):
        del tree[name]
    assert differences(old, new) == {}
    new.augment.coarse = 0.5
    new.frame = "ray"
    assert differences(old, new) == {"augment.coarse": (0.0, 0.5), "frame": ("camera", "ray")}


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("loader_threads", True),
        ("model.remat", True),
        ("eval_every_epochs", True),
        ("data.demo.path", True),
        ("decode.iou_threshold", True),
        ("input.second_look", True),
        ("data.demo.weight", False),
        ("model.width", False),
        ("phases.a.learning_rate", False),
        ("augment.jpeg", False),
        ("seed", False),
    ],
)
def test_what_is_learned_and_how_it_runs(name, runs):
    assert how_it_runs(name) == runs


def test_options_by_their_old_names_are_read(tmp_path):
    config = tiny_config()
    config.eval_images, config.input.second_look = 17, True
    text = config.to_json()
    for new, old in (("eval_images", "eval_pictures"), ("second_look", "far_look")):
        assert text.count(f'"{new}"') == 1
        text = text.replace(f'"{new}"', f'"{old}"')
    (tmp_path / "config.json").write_text(text)
    assert read_config(tmp_path).to_json() == config.to_json()


def test_changes_are_said_and_kept_and_others_refused(tmp_path):
    write_config(tmp_path, tiny_config())
    config = tiny_config()
    config.loader_threads = 7
    config.phases.b.epochs = 9.0
    said = claim(tmp_path, config, {}, AT_A)
    assert said == ["loader_threads is 7 now, was 2", said[1]]
    assert said[1].startswith("phases.b.epochs is 9.0 now")
    assert read_config(tmp_path).loader_threads == 7
    # In phase b the length of phase a is no longer free.
    config.phases.a.epochs = 1.0
    with pytest.raises(BadInput, match=r"phases\.a\.epochs \(0\.017.* there, 1\.0 here\)"):
        claim(tmp_path, config, {}, AT_B)


@pytest.mark.parametrize(("schedule", "said"), [("constant", "done"), ("cosine", "from the start")])
def test_the_phase_that_a_run_stands_in_may_last_longer_or_end_sooner(tmp_path, schedule, said):
    config = tiny_config()
    config.phases.b.schedule = schedule
    write_config(tmp_path, config)
    for epochs, steps in ((9.0, 99), (1.0, 2)):
        config.phases.b.epochs = epochs
        of_option, of_length = claim(tmp_path, config, {}, Reached(1, 2, (3, steps)))
        assert of_option.startswith(f"phases.b.epochs is {epochs} now, was ")
        assert f"b has {steps} steps now, 2 are done" in of_length
        assert of_length.endswith(said)
        assert read_config(tmp_path).phases.b.epochs == epochs
    config.phases.b.epochs = 0.0
    with pytest.raises(BadInput, match=r"phases\.b\.epochs makes 0 steps .* but 2 are done"):
        claim(tmp_path, config, {}, Reached(1, 2, (3, 0)))
    assert read_config(tmp_path).phases.b.epochs == 1.0
    del config.phases.b
    with pytest.raises(BadInput, match=r"phases\.b\.batch_size"):
        claim(tmp_path, config, {}, Reached(1, 2, (3,)))


def test_a_run_gets_no_further_records_and_no_further_phase(tmp_path):
    # Both with the values that an option has by default, as an older configuration would lack it.
    write_config(tmp_path, tiny_config())
    config = tiny_config()
    config.data.more = record_set(config.data.demo.path)
    with pytest.raises(BadInput, match=r"data\.more\.train_split \(None there, 'train' here\)"):
        claim(tmp_path, config, {}, AT_A)
    config = tiny_config()
    config.phases.c = phase((), epochs=1, batch_size=0, learning_rate=0)
    with pytest.raises(BadInput, match=r"phases\.c\.batch_size \(None there, 0 here\)"):
        claim(tmp_path, config, {}, AT_A)


def test_before_the_first_checkpoint_everything_may_change(tmp_path):
    write_config(tmp_path, tiny_config())
    config = tiny_config()
    config.model.width = 0.02
    (line,) = claim(tmp_path, config, {}, None)
    assert "starts anew" in line
    assert read_config(tmp_path).model.width == 0.02


def test_the_same_records_may_lie_elsewhere_and_others_may_not(tmp_path):
    config = tiny_config()
    here = config.data.demo.path
    source = RecordSource(here, "train", decode=False)
    claim(tmp_path / "run", config, identities({"demo": source}), None)
    moved = tmp_path / "moved"
    shutil.copytree(here, moved)
    config.data.demo.path = str(moved)
    said = claim(tmp_path / "run", config, identities({"demo": RecordSource(moved, "train")}), AT_A)
    assert said == [f"data.demo.path is {str(moved)!r} now, was {here!r}"]
    with pytest.raises(BadInput, match=r"config\.data\.demo holds other records"):
        claim(tmp_path / "run", config, identities({"demo": RecordSource(moved, "test")}), AT_A)
    for damage in (b"{", b"[1]", b"\xea"):
        (tmp_path / "run" / RECORDS).write_bytes(damage)
        with pytest.raises(BadInput, match=r"records\.json is damaged .*remove it"):
            claim(tmp_path / "run", config, identities({"demo": source}), AT_A)
    (tmp_path / "run" / RECORDS).unlink()  # begun before records were noted
    claim(tmp_path / "run", config, identities({"demo": source}), AT_A)
