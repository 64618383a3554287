"""Options that cannot be read: the message says what is expected, not how it is read."""

import pytest

from mtnet_jax.cli import main

CONVERT = ["data", "convert"]
PLACES = ["--raw", "raw", "--out", "out"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*CONVERT, "biwi", *PLACES, "--sequences", "a,b"], "a,b is not a row of whole numbers"),
        ([*CONVERT, "yolo", *PLACES, "--processes", "x"], "x is not a whole number from 1"),
        ([*CONVERT, "pseudo-label", *PLACES, "--score", "nan"], "nan is not a number from 0 to 1"),
        (
            [*CONVERT, "pseudo-label", *PLACES, "--max-heading", "-1"],
            "-1 is not a number from 0 to",
        ),
        ([*CONVERT, "panoptic", *PLACES, "--max-size", "nan"], "nan is not a number from 0 to inf"),
        ([*CONVERT, "crops", *PLACES, "--smallest", "-1"], "-1 is not a number from 0 to inf"),
        ([*CONVERT, "csv", *PLACES, "--test-share", "half"], "half is not a number between 0 and"),
        (["data", "show", "set", "--out", "a.png", "--count", "x"], "x is not a whole number from"),
        (["data", "show", "set", "--out", "a.png", "--seed", "-1"], "-1 is not a whole number"),
    ],
)
def test_what_an_option_expects_is_said(command, message, capsys):
    with pytest.raises(SystemExit):
        main(command)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["ablate", "representations"], "--workdir"),
        (["protocol", "1"], "--workdir"),
        (["protocol", "1", "--workdir", "runs/p"], "--rawbiwi"),
        (["protocol", "1", "--workdir", "runs/p"], "--rawdirectmhp"),
        (["quickstart"], "--workdir"),
        (["page"], "--out"),
        (["predict", "a.jpg"], "--out"),
        (["predict", "a.jpg"], "--json"),
        (["data", "show", "set"], "--out"),
        (["data", "images", "set"], "--out"),
    ],
)
def test_an_address_is_not_taken_for_a_folder_of_this_machine(
    command, option, capsys, tmp_path, monkeypatch
):
    """Path("gs://bucket/x") is gs:/bucket/x, on a disk that goes with its machine."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([*command, option, "gs://bucket/x"])
    said = capsys.readouterr().err
    assert f"{option}: gs://bucket/x is an address: give a path of this machine" in said
    assert not list(tmp_path.iterdir())
