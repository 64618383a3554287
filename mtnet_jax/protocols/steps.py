"""The steps of a protocol: convert, check, train, evaluate, and the table at the end.

    WORKDIR/records/NAME    the record sets
    WORKDIR/made.json       the command that made each
    WORKDIR/checked.json    the same, once it was found to be without faults
    WORKDIR/run             the work directory of the training
    WORKDIR/eval            reports: SET-SPLIT by the rule `matched`, authors/SET-SPLIT
    WORKDIR/table.txt, .json

Each step is what a command of its own does, and is printed as that command. The same protocol
again goes on where the work directory stands: a record set that is there is not made again, a
training that ended is not repeated.
"""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep import convert
from mtnet_jax.config import load_config
from mtnet_jax.data.records import RecordSet
from mtnet_jax.errors import BadInput, Failed
from mtnet_jax.evaluation.metrics import PROTOCOLS, Settings
from mtnet_jax.evaluation.predicted import predict_split
from mtnet_jax.evaluation.run import report
from mtnet_jax.inspection.check import print_check
from mtnet_jax.outputs import Outputs
from mtnet_jax.places import write_whole
from mtnet_jax.protocols.plan import DIRECTMHP, EvalSet, Protocol, RawSet
from mtnet_jax.protocols.table import Measured, as_json, format_table
from mtnet_jax.training.loop import train

MADE, CHECKED = "made.json", "checked.json"
_INTERRUPTED = 130


def run_protocol(
    protocol: Protocol,
    raw: Mapping[RawSet, Path],
    workdir: Path,
    *,
    config: str = "",
    overrides: Sequence[str] = (),
    options: Mapping[str, Sequence[str]] | None = None,
    processes: int = 1,
) -> list[Measured]:
    """Goes from raw folders to the table.

    Args:
      protocol: which.
      raw: the raw sets that are there, those that the protocol needs and more to test on, and the
        folder of each.
      workdir: everything goes there.
      config: name or file of a configuration instead of the protocol's, with the same sets.
      overrides: `--config.KEY=VALUE` arguments.
      options: name of a raw set -> more options of its converter.
      processes: that convert.

    Returns:
      What was measured on each test set; it is printed and written.

    Raises:
      BadInput: a raw set is missing, or WORKDIR holds records that other options made.
      Failed: a conversion failed, or a record set has faults.
    """
    missing = [each for each in protocol.needed if each not in raw]
    if missing:
        raise BadInput(
            f"Protocol {protocol.number} needs raw folders: "
            + " ".join(f"{raw_option(each.converter)} DIR" for each in missing)
        )
    chosen = load_config(config or protocol.config, overrides)
    records = {each: workdir / "records" / each.name for each in raw}
    trained = {each.name: records[each] for each in protocol.needed}
    _point_to(chosen, trained, config or protocol.config)
    for each, folder in raw.items():
        more = tuple((options or {}).get(each.name, ()))
        _make(each, folder, records[each], workdir / MADE, more, processes)
    tests = {each: test for each in raw if (test := test_of(each, records[each])) is not None}
    for each, test in tests.items():
        there = RecordSet.open(records[each]).splits
        if test.split not in there:  # before days of training
            raise BadInput(
                f"{records[each]} has no split {test.split!r} to test on, but {', '.join(there)}: "
                f"complete the raw data of {raw_option(each.converter)}, and remove that folder."
            )
    run = workdir / "run"
    places = [f"--config.data.{name}.path={folder}" for name, folder in trained.items()]
    command = ["--config", config or protocol.config, "--workdir", str(run), *places, *overrides]
    _say(f"mtnet train {shlex.join(map(str, command))}")
    train(chosen, run)
    outputs = Outputs("protocol")
    measured = [
        _measure(run, records[each], test, workdir / "eval", outputs)
        for each, test in tests.items()
    ]
    text = "\n\n".join(format_table(each) for each in measured)
    outputs.write(workdir / "table.txt", text + "\n", "protocol")
    outputs.write(workdir / "table.json", as_json(measured), "protocol")
    print(f"\n{text}\n\nThe table: {workdir / 'table.txt'}, .json; reports: {workdir / 'eval'}")
    return measured


def raw_option(converter: str) -> str:
    """The option of the command that names the raw folder of a converter."""
    return f"--raw{converter.replace('_', '')}"


def test_of(raw: RawSet, records: Path) -> EvalSet | None:
    """What is tested on a raw set; of DirectMHP's sets the records say which it is."""
    return DIRECTMHP[RecordSet.open(records).name] if raw.converter == "directmhp" else raw.test


def _point_to(config: Any, trained: Mapping[str, Path], name: str) -> None:
    """Makes a configuration train on the records of the work directory."""
    for each, folder in trained.items():
        if each in config.data:
            config.data[each].path = str(folder)
    strangers = sorted(set(config.data) - set(trained))
    if strangers or not config.data:
        raise BadInput(
            f"The configuration {name} has the record sets {sorted(config.data)}: a protocol "
            f"trains on its own, config.data.{' and config.data.'.join(trained)}."
        )


def _make(
    raw: RawSet, folder: Path, out: Path, made: Path, more: Sequence[str], processes: int
) -> None:
    """Converts and checks a raw set, unless the same command has done so."""
    command = [raw.converter, "--raw", str(folder.resolve()), *raw.options, *more]
    shown = f"mtnet data convert {shlex.join([*command, '--out', str(out)])}"
    checked = made.with_name(CHECKED)
    if out.exists():
        if _noted(made).get(raw.name) != command:
            raise BadInput(
                f"{out} was made by other options than `{shown}`: remove it, or take another "
                "--workdir."
            )
        print(f"{out} is there")
    else:
        _say(shown)
        _note(checked, raw.name, [])
        _note(made, raw.name, command)
        parser = argparse.ArgumentParser(prog="mtnet data convert")
        convert.add_arguments(parser)
        arguments = [*command, "--out", str(out), "--processes", str(processes)]
        code = convert.run(parser.parse_args(arguments))
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise Failed(f"The conversion of {folder} failed: what was wrong stands above.")
    if _noted(checked).get(raw.name) != command:
        _say(f"mtnet data check {out}")
        if print_check([str(out)]):
            raise Failed(f"{out} has faults: they stand above. Remove it to convert it again.")
        _note(checked, raw.name, command)


def _noted(path: Path) -> dict[str, list[str]]:
    """Name of a raw set -> the command that a note is of."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _note(path: Path, name: str, command: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({**_noted(path), name: list(command)}, indent=1).encode())


def _measure(run: Path, records: Path, test: EvalSet, out: Path, outputs: Outputs) -> Measured:
    _say(
        f"mtnet eval --weights {run} --data {records}:{test.split} --out {out}, and with "
        f"--protocol authors --out {out / 'authors'}"
    )
    of = f"{records.resolve()}:{test.split}"
    predicted = predict_split(run, records, test.split)
    name = f"{records.name}-{test.split}"
    results = {}
    for pairing in PROTOCOLS:
        folder = out / name if pairing == "matched" else out / pairing / name
        settings = Settings(protocol=pairing)
        results[pairing] = report(predicted, settings, folder, outputs, of).results["network"]
    info = predicted.source.record_set
    return Measured(test, results, info.box_rule, predicted.source.frame)


def _say(command: str) -> None:
    print(f"\n== {command}", flush=True)
