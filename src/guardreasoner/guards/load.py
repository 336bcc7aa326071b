"""`load_guard`: from a name, folder, file or Python object to a guard that judges."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from guardreasoner.engines.load import REMOTE
from guardreasoner.errors import ConfigError, UnknownName, printable
from guardreasoner.guards.base import Guard, GuardRow, known_mode
from guardreasoner.guards.ours import BUNDLED, OURS
from guardreasoner.records import kind_of
from guardreasoner.types import FailMode, Mode

if TYPE_CHECKING:
    from guardreasoner.guards.reasoning import Budgets


def rows() -> dict[str, GuardRow]:
    """Every guard that is known by name."""
    from guardreasoner.guards.others.table import BASELINES

    return {row.name: row for row in (*OURS, *BASELINES)}


def load_guard(
    name: str | os.PathLike[str] | None = BUNDLED,
    *,
    mode: Mode = "auto",
    fail_mode: FailMode = "closed",
    engine: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
    revision: str | None = None,
    **options: Any,
) -> Guard:
    """Load a guard.

    Args:
        name: a name from the table (`nano`, `guardreasoner-8b`, `llama-guard-3-8b`, ...), a model folder, a YAML file
            with a row of your own, or `module:attribute` / `file.py:attribute` of a guard, a class, or a function.
            None = the bundled one.
        mode: how much it reasons: `instant`, `short`, `full`, or `auto`.
        fail_mode: what becomes of what could not be judged: `closed` flags it, `open` lets it through, marked, unless
            it is too long.
        engine: onnx, hf, vllm, openai or scripted instead of the row's own.
        model: hub id or folder instead of the row's own.
        base_url: where an OpenAI-compatible server listens.
        revision: commit of a model on the hub. A guard of the table whose commit is not known to us needs one; `main`
            takes whatever is there now.
        options: passed to the engine (`threads`, `device`, ...), or known to the row's format (`policy`, ...).

    Raises:
        UnknownName: no guard, engine or mode of that name.
        ConfigError: the folder or file is not a guard, or nothing says which commit of a model is meant.
        MissingDependency: the engine needs an extra.
        EngineError: the weights cannot be loaded.
    """
    name = BUNDLED if name is None else name
    if not isinstance(name, str | os.PathLike):
        raise ConfigError(f"a guard is loaded by its name, folder or file, not by a {kind_of(name)}")
    name = os.fspath(name)
    if fail_mode not in ("closed", "open"):
        raise UnknownName("fail mode", str(fail_mode), ("closed", "open"))
    known_mode(mode)
    given = {"engine": engine, "model": model, "base_url": base_url, "revision": revision}
    if ":" in name and not Path(name).exists():
        from guardreasoner.guards.custom import load_object

        own = {key: value for key, value in given.items() if value}
        return load_object(name, mode=mode, fail_mode=fail_mode, **own, **options)
    row = find_row(name)
    if row.format == "cascade" and (engine or model or revision):
        raise ConfigError(
            f"{row.name} is made of several guards; say with --guard which one the engine or the weights are for"
        )
    unread = next((key for key in ("engine", "base_url", "revision") if given[key]), None)
    if unread and row.format in ("encoder", "constant", "replay"):
        raise ConfigError(f"guard {row.name} runs here, on one engine; it takes no {unread}")
    if engine or model:
        row = replace(
            row, engine=engine or row.engine, model=model or row.model, revision=None if model else row.revision
        )
    if row.format in ("constant", "replay") and options:
        raise ConfigError(f"guard {row.name} takes no option {printable(next(iter(options)), 40)!r}")
    row = _pinned(row, revision, own=model is not None or name != row.name, adapter=options)
    if row.format == "constant":
        from guardreasoner.guards.constant import ConstantGuard

        return cast(Guard, ConstantGuard())
    if row.format == "replay":
        from guardreasoner.guards.replay import ReplayGuard

        return cast(Guard, ReplayGuard(row.model))
    if row.format == "cascade":
        own = {} if "second" in options else dict(row.options)  # stacks are fitted to one second guard
        if "first" in options:
            own = {k: v for k, v in own.items() if k not in ("larger", "bands")}  # and bands to one first
        return _cascade(row, mode=mode, fail_mode=fail_mode, base_url=base_url, **{**own, **options})
    if row.format == "encoder":
        return _encoder(row, mode=mode, fail_mode=fail_mode, **options)
    if row.format == "guardreasoner":
        return _reasoning(row, mode=mode, fail_mode=fail_mode, base_url=base_url, options=options)
    from guardreasoner.guards.others.load import load_prompted

    return load_prompted(row, mode=mode, fail_mode=fail_mode, base_url=base_url, **options)


def _pinned(row: GuardRow, revision: str | None, *, own: bool, adapter: Mapping[str, Any]) -> GuardRow:
    """The row with the commit of its weights: the user's, or the table's.

    Args:
        row: engine and model are those that will run.
        revision: the user's.
        own: the model is of the user's choice, and so is its commit.
        adapter: options that may name another adapter, or its commit.
    """
    if row.engine not in REMOTE or Path(row.model).exists():
        return row
    with_adapter = "adapter" in row.options and not {"adapter", "adapter_revision"} & adapter.keys()
    loose = with_adapter and not row.options.get("adapter_revision")
    if revision and loose and row.revision:
        return replace(row, options={**row.options, "adapter_revision": revision})
    if revision:
        return replace(row, revision=revision)
    if not own and (loose or not row.revision):
        what = row.options["adapter"] if loose and row.revision else row.model
        raise ConfigError(
            f"no commit of {what} is known to us, and the hub's files may change: give a revision, the commit or "
            'main to take what is there now (--revision main, revision="main")'
        )
    return row


def _cascade(
    row: GuardRow,
    *,
    mode: Mode,
    fail_mode: FailMode,
    base_url: str | None,
    first: str | Mapping[str, Any] = "",
    second: str | Mapping[str, Any] = "",
    bands: str | Path | Mapping[str, Any] | None = None,
    stacks: str | Path | None = None,
    larger: str | None = None,
    **options: Any,
) -> Guard:
    """`first` runs in `instant`, by its own row; mode, server and all other options are the second guard's.

    Each is a name, or a name with arguments of its own: `{"name": "replay", "model": "RUN"}`. With `stacks`, a file of
    `evaluate/fit_stack.py`, both decide together, `mode` is the cascade's, and the second is loaded when needed. A
    `larger` guard, an encoder, judges before the second: in `auto` what the first is unsure of by `bands`, in `full`
    everything; the second is then asked where the larger one is unsure by its own calibration.
    """
    from guardreasoner.guards.calibration import read_calibration
    from guardreasoner.guards.cascade import CascadeGuard, read_bands, read_stacks

    known = (
        "first",
        "second",
        "bands",
        "stacks",
        "larger",
        *dict.fromkeys(name for taken in PARTS.values() for name in taken),
    )
    if unknown := next((name for name in options if name not in known), None):
        raise UnknownName(f"option of guard {row.name}", unknown, known)
    if not first or not second or not (bands or stacks):
        raise ConfigError(
            f"guard {row.name} needs first, second and bands, for example --option first=nano "
            """--option second=guardreasoner-8b --option bands='{"prompt_harm": [0.2, 0.8]}'"""
        )
    _budgets(_mapping("budgets", options.get("budgets", {})))  # an error is raised now
    one, two = (
        {"fail_mode": fail_mode, **{k: v for k, v in options.items() if k in PARTS[place]}, **_named(place, given)}
        for place, given in (("first", first), ("second", second))
    )
    fitted, decide = read_stacks(Path(stacks)) if stacks else ({}, None)
    checked = read_bands(bands) if bands else fitted
    wider = find_row(larger) if larger else None
    if wider and options.get("calibration"):
        raise ConfigError(
            f"guard {row.name} judges with several guards, and a calibration is for one; say which with --guard"
        )
    late = {"mode": "full" if stacks else mode, "base_url": base_url, **two}
    early = load_guard(**{"mode": "instant", **one})
    needed = mode in ("short", "full")
    if wider:
        alike: dict[str, Any] = {"mode": "instant", "fail_mode": fail_mode, "threads": options.get("threads")}
        middle = load_guard(larger, **alike) if needed else lambda: load_guard(larger, **alike)
        early = cast(Guard, CascadeGuard(early, middle, checked, parts_stay=True, name=early.name))
        checked = read_calibration(Path(wider.model) / "calibration.json").bands("instant")
    if decide is None:
        return cast(Guard, CascadeGuard(early, load_guard(**late), checked))
    find_row(late["name"])  # a name that does not exist is named now, not in the middle of a run
    name = row.name if row.options else f"{early.name}+{Path(late['name']).name}"
    later = load_guard(**late) if needed else lambda: load_guard(**late)
    return cast(Guard, CascadeGuard(early, later, checked, stacks=decide, mode=mode, reasons="full", name=name))


PARTS = {"first": ("threads", "calibration"), "second": ("threads", "budgets")}
"""Options of a cascade that are passed on to its guards."""


def _named(place: str, given: str | Mapping[str, Any]) -> Mapping[str, Any]:
    named = {"name": given} if isinstance(given, str) else _mapping(place, given)
    if "name" not in named:
        raise ConfigError(f"option {place} has no name; it is a guard's name, or a mapping with name and its arguments")
    return named


def behind(first: str, second: Guard, *, mode: Mode, stacks: Path | None = None) -> Guard:
    """A guard behind another whose verdicts it reads (`judge(first=...)`), asked about every exchange.

    Args:
        first: a guard by name, run in `instant`.
        second: closed with the guard that is returned.
        mode: `short` or `full`.
        stacks: a file of `evaluate/fit_stack.py`; both decide together. None = the second decides.
    """
    from guardreasoner.guards.cascade import CascadeGuard, read_stacks

    bands, decide = read_stacks(stacks) if stacks else ({}, None)
    return cast(Guard, CascadeGuard(load_guard(first, mode="instant"), second, bands, stacks=decide, mode=mode))


def find_row(name: str) -> GuardRow:
    """The row behind a name, a folder or a YAML file."""
    path = Path(name)
    plain = path.name == name and any(row.name == name for row in OURS)  # a folder of that name is ./NAME
    if path.is_dir() and not plain:
        return folder_row(path)
    if path.suffix in (".yaml", ".yml"):
        from guardreasoner.guards.custom import read_row

        return read_row(path)
    if "/" in name or "\\" in name or name.startswith("."):
        raise ConfigError(_no_such_path(path))
    own = next((row for row in OURS if row.name == name), None)  # found without importing the baselines' table
    known = {} if own else rows()
    if not own and name not in known:
        raise UnknownName("guard", name, known)
    return own or known[name]


def _no_such_path(path: Path) -> str:
    """What is wrong with a path that is no folder, with the nearest thing beside it."""
    if path.exists():
        return f"{path} is no guard; give a model folder, a YAML row, or file.py:attribute"
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.5)
    hint = f"did you mean {path.parent / near[0]}?" if near else "`guardreasoner guards` lists those known by name"
    return f"there is no folder or file {printable(str(path), 200)}; {hint}"


def folder_row(folder: Path) -> GuardRow:
    """A row for a model folder: an encoder by its `guard.json`, a decoder in ONNX by its `genai_config.json`, else a
    transformers checkpoint by its `config.json`.
    """
    meta = _read_meta(folder)
    if meta.get("format") == "encoder":
        return GuardRow(folder.name, "encoder", "encoder", str(folder))
    if (folder / "genai_config.json").exists():
        engine = "onnx"
    elif (folder / "config.json").exists() or (folder / "adapter_config.json").exists():
        engine = "hf"
    else:
        raise ConfigError(
            f"{folder} is no model folder: it has no guard.json of an encoder, no genai_config.json (ONNX) and no "
            "config.json (transformers)"
        )
    options = {"wire": meta["wire"]} if meta.get("wire") else {}
    return GuardRow(folder.name, "guardreasoner", engine, str(folder), options=options)


def _read_meta(folder: Path) -> Mapping[str, Any]:
    path = folder / "guard.json"
    if not path.exists():
        return {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({type(error).__name__})") from None
    if not isinstance(meta, dict):
        raise ConfigError(f"{path}: a JSON {type(meta).__name__} where an object is wanted")
    for key, kind in (("wire", str), ("format", str), ("budgets", dict), ("languages", list)):
        if not isinstance(meta.get(key, kind()), kind) and meta[key] is not None:
            raise ConfigError(f"{path}: {key!r} has a value of another kind than {kind.__name__}")
    from guardreasoner.formats.guardreasoner import VERSION

    version = meta.get("format_version", VERSION)
    if meta.get("format") == "guardreasoner" and version != VERSION:
        raise ConfigError(f"{path}: format_version is {printable(str(version), 40)!r}, known: {VERSION!r}")
    return meta


def _encoder(
    row: GuardRow,
    *,
    mode: Mode,
    fail_mode: FailMode,
    calibration: Any = None,
    threads: int | None = None,
    **unknown: Any,
) -> Guard:
    from guardreasoner.engines.encoder import EncoderEngine
    from guardreasoner.engines.load import check_options
    from guardreasoner.engines.micro import MicroEngine
    from guardreasoner.guards.calibration import calibration_of
    from guardreasoner.guards.encoder import EncoderGuard

    if unknown:
        raise UnknownName(f"option of guard {row.name}", next(iter(unknown)), ("calibration", "threads"))
    own = Path(row.model) / "calibration.json"
    found = calibration or (own if calibration is None and own.exists() else None)
    curves = calibration_of(found)
    kind = MicroEngine if "networks" in _read_meta(Path(row.model)) else EncoderEngine
    check_options("encoder", kind, {"threads": threads})
    engine = kind(row.model, threads=threads, name=row.name)
    return cast(Guard, EncoderGuard(row.name, engine, mode=mode, fail_mode=fail_mode, calibration=curves))


def _mapping(name: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"option {name} is a mapping, such as {name}='{{...}}', not {type(given).__name__}")
    return given


def _budgets(given: Mapping[str, Any]) -> Budgets:
    from guardreasoner.guards.reasoning import Budgets

    for mode, tokens in given.items():
        if mode not in ("short", "full"):
            raise UnknownName("budget", str(mode), ("short", "full"))
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
            raise ConfigError(f"the budget of mode {mode} is a number of tokens of at least 1")
    return Budgets(**given)


ASSUMED = "raw, assumed: the model's folder has no guard.json that says in which form it was trained to be asked"


def _reasoning(
    row: GuardRow, *, mode: Mode, fail_mode: FailMode, base_url: str | None, options: Mapping[str, Any]
) -> Guard:
    from guardreasoner.engines.load import load_engine
    from guardreasoner.guards.calibration import calibration_of
    from guardreasoner.guards.reasoning import ReasoningGuard

    rest = dict(options)
    own = Path(row.model)
    meta = _read_meta(own) if own.is_dir() else {}
    found = rest.pop("calibration", None) or (own / "calibration.json" if (own / "calibration.json").exists() else None)
    calibration = calibration_of(found)
    budgets = _budgets({**(meta.get("budgets") or {}), **_mapping("budgets", rest.pop("budgets", {}))})
    wire = rest.pop("wire", None) or meta.get("wire") or row.options.get("wire")
    engine = load_engine(row.engine, model=row.model, base_url=base_url, revision=row.revision, **rest)
    return ReasoningGuard(
        row.name,
        engine,
        wire=wire or "raw",
        mode=mode,
        fail_mode=fail_mode,
        calibration=calibration,
        budgets=budgets,
        concludes=bool(meta.get("concludes")),
        first_look=bool(meta.get("first_look")),
        english=meta.get("languages") == ["en"],
        notes={} if wire else {"wire": ASSUMED},
    )
