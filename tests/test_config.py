"""Configuration files that start from others."""

import pytest

from mtnet_jax.config import load_config, starting_from
from mtnet_jax.errors import BadInput

FIRST = """
from mtnet_jax.config import default_config

RATES = {"width": 0.5, "depth": 0.25}


def get_config():
    config = default_config()
    config.model.update(RATES)
    return config
"""
SECOND = """
from mtnet_jax.config import starting_from

RATES = {"width": 0.125}


def get_config():
    config = starting_from("FIRST")
    config.model.update(RATES)
    return config
"""


@pytest.fixture
def second(tmp_path):
    """A file that starts from another and has a constant of the same name as that one."""
    (tmp_path / "first.py").write_text(FIRST)
    path = tmp_path / "second.py"
    path.write_text(SECOND.replace("FIRST", str(tmp_path / "first.py")))
    return path


def test_each_file_has_its_own_constants(second):
    config = load_config(second)
    assert (config.model.width, config.model.depth) == (0.125, 0.25)


def test_the_command_line_comes_last(second):
    assert load_config(second, ["--config.model.width=0.75"]).model.width == 0.75


def test_names_that_do_not_ship_are_listed():
    for read in (load_config, starting_from):
        with pytest.raises(ValueError, match=r"none of that name ships: .*paper"):
            read("unheard_of")


BEGUN = "from mtnet_jax.config import default_config, phase, record_set\n\n\n"


def a_file(folder, *lines, ends="return config"):
    """A configuration file with these lines between its beginning and its end, from line 6 on."""
    body = "".join(f"    {line}\n" for line in ("config = default_config()", *lines, ends))
    (folder / "mine.py").write_text(f"{BEGUN}def get_config():\n{body}")
    return folder / "mine.py"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "config.model.widht = 0.5",
            r"config\.model\.widht is no option: .* config\.model\.width\?",
        ),
        ("config.augment.trun = 5.0", r"config\.augment\.trun .* config\.augment\.turn\?"),
        ("config.learning = 1", r"config\.learning is no option"),
        (
            "config.phases.phase1.loss.alhpa = 1.0",
            r"config\.phases\.phase1\.loss\.alhpa .*loss\.alpha\?",
        ),
        (
            'del config.phases.phase1["warmup_steps"]',
            r"config\.phases\.phase1 lacks warmup_steps: phase\(\.\.\.\)",
        ),
        ('del config.model["width"]', r"config\.model lacks width: default_config\(\)"),
        (
            "config.data.mine = 3",
            r"config\.data\.mine is 3, but holds options: eval_split, labels, path",
        ),
        (
            'config.data.mine = {"path": "records"}',
            r"config\.data\.mine lacks eval_split, labels, train_split, weight: record_set",
        ),
    ],
)
def test_options_that_are_misspelt_or_missing_are_named(tmp_path, line, said):
    with pytest.raises(BadInput, match=rf"mine\.py: {said}"):
        load_config(a_file(tmp_path, line))


def test_record_sets_phases_and_labels_have_names_of_their_own(tmp_path):
    path = a_file(
        tmp_path,
        'config.data.mine = record_set("records", labels={"hard_hat": "head"})',
        'config.phases.last = phase(("face",), epochs=1, batch_size=8, learning_rate=1e-3)',
    )
    config = load_config(path, ["--config.phases.last.epochs=2"])
    assert config.phases.last.epochs == 2
    assert config.data.mine.labels.to_dict() == {"hard_hat": "head"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['folder = {}["NO_SUCH_NAME"]'], "line 6: KeyError: NO_SUCH_NAME$"),
        (["config.modle.width = 1"], "line 6: AttributeError: .*modle.* Did you mean .*model"),
        (["1 +"], "line 6: SyntaxError: invalid syntax"),
        (["import a_module_of_nobody"], "line 6: ModuleNotFoundError: No module"),
        (["phase((), epochs=0, batch_size=1)"], "line 6: TypeError: .*learning_rate"),
        (["return {}"], "get_config\\(\\) gives a dict, not a ConfigDict"),
    ],
)
def test_errors_in_a_file_are_said_with_their_line(tmp_path, lines, said):
    path = a_file(tmp_path, *lines)
    for read in (load_config, starting_from):
        with pytest.raises(BadInput, match=rf"mine\.py(, |: ){said}"):
            read(path)


def test_a_file_without_a_configuration(tmp_path):
    (tmp_path / "mine.py").write_text("config = 1\n")
    with pytest.raises(BadInput, match=r"mine\.py has no function get_config\(\)"):
        load_config(tmp_path / "mine.py")


@pytest.mark.parametrize("option", ["model.widht", "nothing.at.all"])
def test_options_of_the_command_line_that_there_are_none_of(option):
    with pytest.raises(BadInput, match=r"No such option in the configuration .*small\.py: "):
        load_config("small", [f"--config.{option}=1"])
