"""Settings by their dotted names: compared, changed, read from a command line, kept as JSON."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from training.config import BASE, RECIPES, Config, ConfigError, require

# Where data lie: the same run on another machine may have them elsewhere.
PLACES = ("data.root", "data.clean", "data.noise")

# Settings that would say one thing while another is done.
_BY_FLAG = {
    "recipe": "--recipe",
    "name": "the train.py or --preset",
    **dict.fromkeys(("data.source", *PLACES), "--data, --mix or --sample"),
}
_LARGEST_SIZE = 2**16  # of anything in a network


def flatten(config: Config) -> dict[str, Any]:
    """Every setting by its dotted name, as in {"model.d_state": 16, "seed": 0}."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name == "model":
            flat |= {f"model.{key}": setting for key, setting in value.items()}
        elif dataclasses.is_dataclass(value):
            flat |= {f"{item.name}.{key}": v for key, v in vars(value).items()}
        else:
            flat[item.name] = value
    return flat


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations differ, as {name: (old, new)}; None is absent."""
    a, b = flatten(old), flatten(new)
    names = sorted(a.keys() | b.keys())
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def beside_recipe(config: Config) -> dict[str, Any]:
    """The settings of loss and optimizer that are not those of the configuration's recipe."""
    recipe = override(BASE, RECIPES[config.recipe])
    changed = diff(recipe, config).items()
    return {name: new for name, (_, new) in changed if name.startswith(("loss.", "optim."))}


def method(config: Config) -> dict[str, Any]:
    """The settings that a run's outcome follows from, but for the seed and where data lie."""
    return {
        name: value
        for name, value in flatten(config).items()
        if name not in ("seed", *PLACES) and (not name.startswith("run.") or name == "run.amp")
    }


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy with some settings changed, by dotted name.

    Raises:
        ConfigError: a name is unknown (with a suggestion) or a value does not fit.
    """
    for name, value in changes.items():
        group, _, key = name.partition(".")
        if group == "model" and key:
            config = dataclasses.replace(config, model={**config.model, key: value})
        elif name not in flatten(config):
            raise ConfigError(f"unknown setting {name!r}{suggestion(name, flatten(config))}")
        elif not key:
            config = dataclasses.replace(config, **{name: value})
        else:
            part = dataclasses.replace(getattr(config, group), **{key: value})
            config = dataclasses.replace(config, **{group: part})
    return config


def parse_settings(config: Config, assignments: list[str], defaults: Mapping[str, Any]) -> Config:
    """Apply assignments from a command line, as in ["model.d_state=8", "loss.phase=0"].

    defaults: the network's arguments with their defaults, the settings that `model.` may take.

    Raises:
        ConfigError: one is malformed, unknown or of the wrong type.
    """
    known = {f"model.{key}": value for key, value in defaults.items()} | flatten(config)
    changes = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(
                f"--set takes NAME=VALUE, as in optim.learning_rate=1e-3: {assignment}"
            )
        if name in _BY_FLAG:
            raise ConfigError(f"{name} is not for --set: {_BY_FLAG[name]} decides it")
        if name not in known:
            raise ConfigError(f"unknown setting {name!r}{suggestion(name, known)}")
        changes[name] = _parse(name, text, known[name])
    return override(config, changes)


def check_model(config: Config, defaults: Mapping[str, Any]) -> None:
    """Check `config.model` against the network's arguments and their defaults.

    Raises:
        ConfigError: the network takes no such argument, or a size is out of all bounds, or there
            are more or fewer of them than the network has.
    """
    for key, value in config.model.items():
        name = f"model.{key}"
        if key not in defaults:
            raise ConfigError(f"unknown setting {name!r}{suggestion(key, defaults)}")
        sizes = value if isinstance(value, tuple) else (value,)
        require(
            all(type(size) is not int or 1 <= size <= _LARGEST_SIZE for size in sizes),
            f"{name} is {value}, expected at least 1 and at most {_LARGEST_SIZE}",
        )
        count = len(defaults[key]) if isinstance(defaults[key], tuple) else 1
        require(len(sizes) == count, f"{name} is {value}, expected {count} values")


def suggestion(name: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for the known name closest to `name`, else a list of what there is."""
    by_last = {full.rpartition(".")[2]: full for full in known}
    close = difflib.get_close_matches(name, list(by_last.values()), n=1) or [
        by_last[last] for last in difflib.get_close_matches(name.rpartition(".")[2], by_last, n=1)
    ]
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(sorted(known))}"


def _parse(name: str, text: str, current: Any) -> Any:
    """The value that `text` stands for, in the type of `current`, the setting's present value.

    Raises:
        ConfigError: it does not fit.
    """
    wanted = type(current)
    if wanted is str:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    # use_checkpoint is a truth value or a word.
    if name == "model.use_checkpoint" and value == "full":
        return value
    several = wanted is tuple and isinstance(value, list | tuple)
    kind = type(current[0]) if wanted is tuple and current else str if several else wanted
    parts = [_as_float(v) if kind is float else v for v in (value if several else [value])]
    expected = f"{kind.__name__}s, as in {current}" if wanted is tuple else kind.__name__
    require(
        (several or wanted is not tuple) and all(type(v) is kind for v in parts),
        f"{name} takes {expected}, not {text!r}",
    )
    require(kind is not float or all(map(math.isfinite, parts)), f"{name} takes finite numbers")
    return tuple(parts) if several else parts[0]


def _as_float(value: Any) -> Any:
    """An integer as the float it stands for; anything else, and one beyond all floats, as it is."""
    return float(value) if type(value) is int and abs(value) < 2**1000 else value


def to_json(config: Config) -> str:
    """The configuration as JSON text, one dotted setting a line."""
    return json.dumps(flatten(config), indent=1)


def from_json(text: str) -> Config:
    """The configuration that `to_json` wrote.

    Raises:
        ConfigError: the text is not that.
    """
    try:
        flat = json.loads(text)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in flat.items()}
        return override(Config(), settings)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"not a configuration of this version: {error}") from None


def network_defaults(network: type) -> dict[str, Any]:
    """The arguments of a network's class with their defaults: what `model.` may set."""
    parameters = inspect.signature(network).parameters.values()
    return {p.name: p.default for p in parameters}
