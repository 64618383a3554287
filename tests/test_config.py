"""Configuration files that start from others."""

import pytest

from mtnet_jax.config import load_config, starting_from

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
