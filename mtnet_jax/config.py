"""The configuration: every option with its unit and default.

`default_config` is the setting of the paper. Files in `configs/` start from it and change what they
want; any value can also be changed on the command line (`--config.model.width=0.25`).
"""

import difflib
import runpy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from mtnet_jax.anchors import COCO_ANCHORS
from mtnet_jax.data.augment import AugmentOptions
from mtnet_jax.data.packing import PackOptions
from mtnet_jax.errors import BadInput, MtnetError
from mtnet_jax.losses import LossWeights
from mtnet_jax.shipped import shipped, shipped_names
from mtnet_jax.targets import AssignOptions


def record_set(
    path: str,
    *,
    train_split: str = "train",
    eval_split: str = "test",
    weight: float = 1.0,
    labels: Mapping[str, str] | None = None,
) -> ConfigDict:
    """One entry of `config.data`.

    Args:
      path: directory of the record set.
      train_split: split to train on; "" trains on nothing of it.
      eval_split: split to evaluate on during training; "" evaluates on nothing of it.
      weight: how often each of its images comes in an epoch.
      labels: label of the record set -> the class it is; others are classes of their own name.
    """
    return ConfigDict(
        {
            "path": path,
            "train_split": train_split,
            "eval_split": eval_split,
            "weight": weight,
            "labels": dict(labels or {}),
        }
    )


def trained_on(weights: Mapping[str, float]) -> ConfigDict:
    """`config.data` of record sets in `records/`, by name: how often each of their images comes."""
    return ConfigDict(
        {
            name: record_set(f"records/{name}", weight=weight, eval_split="")
            for name, weight in weights.items()
        }
    )


def phase(
    trainable: tuple[str, ...],
    *,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    schedule: str = "constant",
    warmup_steps: int = 0,
    accumulate: int = 1,
    rate_rule: str = "none",
    rate_batch: int = 0,
    frozen_stages: int = 0,
    weight_decay: float = 0.0,
    b2: float = 0.999,
    **weights: float,
) -> ConfigDict:
    """One entry of `config.phases`.

    Args:
      trainable: groups that learn: "backbone", "neck", "face", "pose". The others are frozen.
      epochs: passes over the training images; fractions are allowed.
      batch_size: images a step, over all devices and hosts.
      learning_rate: of Adam, at its highest, in batches of `rate_batch` images.
      schedule: "constant", or "cosine" down to 1 % at the end of the phase.
      warmup_steps: of linear rise from 0.
      accumulate: parts in which a batch is computed, one after another, for one step: of larger
        batches than fit in memory.
      rate_rule: how the learning rate grows from `rate_batch` to `batch_size`: "none", "linear", or
        with the root, "sqrt".
      rate_batch: images of the batch that `learning_rate` is for; 0 with the rule "none".
      frozen_stages: of the backbone, beyond the paper: the stem and the first so many of its five
        stages stay as they are where "backbone" is trainable; 0: all learn.
      weight_decay: beyond the paper: so much of the kernels that learn, times the learning rate, is
        taken from them at each step (AdamW); 0: none.
      b2: decay of Adam's mean of squared gradients.
      **weights: of the loss, see `mtnet_jax.losses.LossWeights`. alpha = 1 leaves the pose out.
    """
    return ConfigDict(
        {
            "trainable": tuple(trainable),
            "epochs": float(epochs),
            "batch_size": batch_size,
            "learning_rate": float(learning_rate),
            "schedule": schedule,
            "warmup_steps": warmup_steps,
            "accumulate": accumulate,
            "rate_rule": rate_rule,
            "rate_batch": rate_batch,
            "frozen_stages": frozen_stages,
            "weight_decay": float(weight_decay),
            "b2": float(b2),
            "loss": {k: float(v) for k, v in LossWeights(**weights)._asdict().items()},
        }
    )


def default_config() -> ConfigDict:
    """The setting of the paper; see the comments for units and choices."""
    config = ConfigDict()
    config.seed = 0
    config.class_names = ("head",)  # records with labels of other names are refused

    config.model = ConfigDict()
    config.model.version = "v2"  # "v1": one shared head; "v2": a pose branch of its own (Table 2)
    config.model.representation = "vectors"  # "euler", "vectors", "sixd", "quaternion"
    config.model.width = 1.0  # multiplier of the channels
    config.model.depth = 1.0  # multiplier of the residual blocks
    config.model.pose_width = 0.0  # multiplier of the pose branch's hidden channels; 0: width
    config.model.pose_blocks = 0  # residual blocks before them (3x3); the paper has none
    config.model.box_activation = "none"  # "tanh" on tx, ty, tw, th
    config.model.pose_activation = "none"  # "tanh" on the pose values ("v1 tanh" of Table 2)
    config.model.aggregate = "none"  # "boxes": box predictions join the pose branch's input
    config.model.dtype = "float32"  # of training; "bfloat16" for GPUs, TPUs and some CPUs
    config.model.remat = "none"  # "blocks": less memory in training, more time, same numbers

    config.input = ConfigDict()
    config.input.size = 416  # pixels, a multiple of 32
    config.input.anchors = COCO_ANCHORS  # (width, height) at 416, `mtnet data anchors` fits them
    # In prediction, heads that the input shows large or small are looked at once more, at the size
    # that packed training inputs show (`config.pack`): for networks that were trained with those.
    config.input.second_look = False
    config.input.max_heads = 64  # an image; of more, the smallest are dropped and counted

    config.data = ConfigDict()  # name -> record_set(...)
    config.mix_box_rules = False  # True: trains on sets whose boxes follow different rules
    config.frame = "camera"  # of rotations: "camera" axes, or "ray": as a crop shows the head
    config.augment = ConfigDict(AugmentOptions()._asdict())
    config.pack = ConfigDict(PackOptions()._asdict())  # inputs made of crops of several records
    config.loader_threads = 2  # that read, decode and augment, on each host
    config.loader_processes = 0  # that do it in their place, where threads are not enough

    config.assign = ConfigDict(AssignOptions()._asdict())  # predictions that answer for a head

    # Of boxes, beyond the paper, where a phase's loss.iou is above 0: "giou" or "ciou".
    config.iou_loss = "ciou"

    config.pose_loss = ConfigDict()
    config.pose_loss.vectors = "squared"  # eq. 2; "norm": without the square; "geodesic"
    config.pose_loss.orthogonality = 1.0  # weight of eq. 3, unordered pairs; 2.0 = ordered pairs

    everything = ("backbone", "neck", "face", "pose")
    config.phases = ConfigDict()  # run in the order of their names
    config.phases.phase1 = phase(("face",), epochs=50, batch_size=64, learning_rate=1e-3, alpha=1)
    config.phases.phase2 = phase(
        ("backbone", "neck", "face"), epochs=50, batch_size=16, learning_rate=1e-4, alpha=1
    )
    config.phases.phase3 = phase(
        everything, epochs=50, batch_size=16, learning_rate=1e-4, alpha=0.5
    )
    config.clip_norm = 0.0  # clips the global gradient norm; 0 does not
    # Of an average of the weights, which is then what is evaluated and exported; 0: none.
    config.ema_decay = 0.0  # such as 0.999

    config.mesh = ConfigDict()  # of all devices of all hosts
    config.mesh.fsdp = 1  # devices that share one copy of the parameters; 1: each has its own
    config.mesh.shard_above = 65536  # numbers; smaller arrays are on every device all the same

    config.init = ConfigDict()
    config.init.darknet_weights = ""  # darknet53.conv.74 or yolov3.weights for width = depth = 1
    config.init.weights = ""  # a work directory or an export to start from, where groups fit

    config.decode = ConfigDict()
    config.decode.iou_threshold = 0.5  # of non-maximum suppression
    config.decode.max_heads = 100  # an image
    config.decode.candidates = 512  # predictions that enter the suppression
    config.decode.vote = False  # beyond the paper: all predictions of a head have a say in its pose

    config.log_every_steps = 20
    config.save_every_steps = 500
    config.eval_every_epochs = 5.0  # and after each phase; 0: after each phase only
    config.eval_images = 0  # at most so many of each set while training; 0: all
    config.eval_batch_size = 16  # images a device while training
    config.keep_checkpoints = 2
    config.best_metric = ""  # SET/METRIC: the best checkpoint is kept too; "demo/ap50"
    config.peak_tflops = 0.0  # of a device, for "mfu" in the log; 0: known chips' own, no CPU's
    return config


def starting_from(config: str | Path) -> ConfigDict:
    """The configuration of a file, or of this name that ships, for a file that changes it."""
    return _run(_file_of(config))


def load_config(config: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """The configuration of a file, changed by `--config.KEY=VALUE` arguments.

    Args:
      config: a file whose `get_config()` returns one; or the name of one that ships, as "small".
      overrides: the arguments.

    Raises:
      ValueError: no such file or name, an error in the file, an option that it misspells or leaves
        out, or an argument that is no option of the configuration.
    """
    path = _file_of(config)
    found, values = _run(path), flags.FlagValues()
    if faults := _name_faults(found, defaults_like(found)):
        raise BadInput(f"{path}: {'; '.join(faults)}")
    arguments = ["mtnet train", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", found, flag_values=values, sys_argv=arguments)
        unused = values(arguments)[1:]
    except flags.Error as error:
        raise BadInput(" ".join(str(error).split())) from error
    except (AttributeError, KeyError) as error:
        raise BadInput(f"No such option in the configuration {path}: {_said(error)}") from error
    if unused:
        raise BadInput(f"Unknown arguments: {' '.join(unused)} (options are --config.KEY=VALUE).")
    return values.config


def _run(path: Path) -> ConfigDict:
    """What `get_config()` of a file gives.

    Raises:
      BadInput: it gives something else; see also `call_in_file`.
    """
    found = call_in_file(path, "get_config", "a configuration")
    if not isinstance(found, ConfigDict):
        raise BadInput(
            f"{path}: get_config() gives a {type(found).__name__}, not a ConfigDict: begin with "
            "config = default_config(), or starting_from(NAME), and end with return config."
        )
    found.unlock()
    return found


def call_in_file(path: Path, name: str, gives: str) -> Any:
    """What a function of a Python file gives.

    Args:
      path: of the file.
      name: of the function, which takes nothing.
      gives: what it gives, for the message.

    Raises:
      BadInput: there is no such function, or the file raises an error: it is said with its line.
    """
    # Not by ml_collections, which runs every file as one and the same module: a file that starts
    # from another would find the other's constants in place of its own of the same name.
    try:
        function = runpy.run_path(str(path)).get(name)
        found = function() if function else None
    except MtnetError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise BadInput(f"{path}, {_line(error, path)}: {kind}: {_said(error)}") from error
    if function is None:
        raise BadInput(f"{path} has no function {name}(), which gives {gives}.")
    return found


def _line(error: Exception, path: Path) -> str:
    """Where in a file an error was made."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"line {lines[-1]}" if lines else "in what it imports"


def _said(error: Exception) -> str:
    """What an error says, in one line."""
    # ml_collections wraps one error into another and says "did you mean" on a second line.
    said: Any = error
    while isinstance(said, Exception) and said.args:
        said = said.args[0]
    return " ".join(str(said).split())


def defaults_like(config: ConfigDict) -> ConfigDict:
    """The default of every option, for the record sets and phases that a configuration names."""
    usual = default_config()
    usual.data = ConfigDict({name: record_set("") for name in config.get("data") or {}})
    blank = phase((), epochs=0, batch_size=0, learning_rate=0)
    usual.phases = ConfigDict({name: blank for name in config.get("phases") or {}})
    return usual


def _name_faults(found: Any, usual: ConfigDict, section: str = "config") -> list[str]:
    """What options of a configuration are not options, and which it lacks."""
    if not isinstance(found, ConfigDict):
        return [f"{section} is {found!r}, but holds options: {', '.join(usual)}"]
    faults = []
    for name in set(found) - set(usual):
        alike = difflib.get_close_matches(name, usual, n=1)
        cure = f"did you mean {section}.{alike[0]}?" if alike else f"there are {', '.join(usual)}"
        faults.append(f"{section}.{name} is no option: {cure}")
    if missing := sorted(set(usual) - set(found)):
        faults.append(
            f"{section} lacks {', '.join(missing)}: {_made_by(section)} gives all of them"
        )
    for name in set(usual) & set(found):
        # An empty section has names of the user's own: labels of a record set.
        if isinstance(usual[name], ConfigDict) and usual[name]:
            faults += _name_faults(found[name], usual[name], f"{section}.{name}")
    return sorted(faults)


def _made_by(section: str) -> str:
    """The function that makes a section with all of its options."""
    for kind, function in (("data", "record_set(...)"), ("phases", "phase(...)")):
        if section.startswith(f"config.{kind}."):
            return function
    return "default_config()"


def _file_of(config: str | Path) -> Path:
    """The file of a configuration: itself, or the one of this name that ships."""
    path = Path(config)
    if path.is_file():
        return path
    names = shipped_names("configs")
    if str(config) not in names:
        raise BadInput(
            f"No configuration file {config}, and none of that name ships: {', '.join(names)}."
        )
    return shipped(f"configs/{config}.py")


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of every option of a tree of dicts."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat
