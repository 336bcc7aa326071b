"""From a row of the table to a guard: read its texts, apply policies and options, load its engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from guardreasoner.engines.base import Engine
from guardreasoner.errors import ConfigError, EngineError
from guardreasoner.formats.base import format_of
from guardreasoner.generation import Chat
from guardreasoner.guards.base import GuardRow
from guardreasoner.guards.calibration import calibration_of
from guardreasoner.guards.others.fetch import Frame, digest, read_frame
from guardreasoner.guards.others.prompted import PromptedGuard
from guardreasoner.guards.others.prompts import TEMPLATES, read_policy
from guardreasoner.types import Exchange, FailMode, Mode, Task


def load_prompted(
    row: GuardRow,
    *,
    mode: Mode = "auto",
    fail_mode: FailMode = "closed",
    base_url: str | None = None,
    engine: Engine | None = None,
    **options: Any,
) -> PromptedGuard:
    """A guard from its row.

    Args:
        base_url: where its server listens, in place of the row's own.
        engine: a ready engine in place of the row's own.
        options: `policy` (a file), `calibration` (a file), `frame` (a file or folder with the prompt text), the
            format's own options, and what is left goes to the engine.
    """
    from guardreasoner.guards.others.table import BASELINES

    listed = next((r for r in BASELINES if r.name == row.name), row)
    check_retired(row, listed.model, base_url)
    wanted, notes = _asked(row, options)
    kind = format_of(row.format)
    known = {f.name for f in fields(kind.Options)}
    ready = replace(row, options={k: resolve(v, row.name) for k, v in wanted.items() if k in known})
    if engine is None:
        extra = {k: v for k, v in wanted.items() if k not in known}
        if row.engine != listed.engine:
            notes |= _without_adapter(row, listed, options)
            extra = {k: v for k, v in extra.items() if k in options}  # the row's own are for its own engine
        engine = _engine(row, extra, base_url)
    calibration = calibration_of(options.get("calibration"))
    guard = PromptedGuard(ready, engine, mode=mode, fail_mode=fail_mode, calibration=calibration, notes=notes)
    _check_arguments(guard)
    guard.notes |= template_note(guard)
    return guard


def _asked(row: GuardRow, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, object]]:
    """The row's options with the user's in their place, and what verdicts must say about that."""
    wanted = {**row.options, **{k: v for k, v in options.items() if k != "calibration"}}
    notes: dict[str, object] = {}
    if wanted.pop("policy", None):
        wanted["policy"] = policy_for(row, options.get("policy", row.options.get("policy")))
        notes["policy"] = list(wanted["policy"])
        if "policies" in wanted:
            wanted["policies"] = {}  # the row's own need not even be read then
    if "frame" in options:
        wanted["frame"] = own_frame(row, options["frame"])
        notes["frame"] = {side: f"sha256 {digest(text)[:12]}" for side, text in wanted["frame"].items()}
    return wanted, notes


def _check_arguments(guard: PromptedGuard) -> None:
    """Refuse a server that would drop the arguments of the guard's chat template in silence."""
    from guardreasoner.engines.load import SERVERS

    if guard.row.engine not in SERVERS or getattr(guard.engine, "tokenizer", None) is not None:
        return
    made = guard.format.render(
        Exchange("", "a", "a"), (Task.prompt_harm, Task.response_harm), guard.options, force=False
    )
    args = {k for c in made if isinstance(c.prompt, Chat) for k in c.prompt.template_args if k != "content_parts"}
    if args:
        raise ConfigError(
            f"{guard.name} needs {', '.join(sorted(args))} given to its chat template, which a chat server does not "
            "take: use --engine hf or vllm, or the option tokenizer with a completions server"
        )


def template_note(guard: PromptedGuard) -> dict[str, object]:
    """`template`, where the model's chat template makes other bytes than those the table knows."""
    known, tokenizer = TEMPLATES.get(guard.name), getattr(guard.engine, "tokenizer", None)
    if known is None or tokenizer is None or getattr(guard.options, "policy", None):
        return {}
    exchange = Exchange("", "{prompt}", "{response}")
    tasks = tuple(t for t in exchange.tasks if t in guard.tasks)
    try:
        made = guard.format.render(exchange, tasks, guard.options, force=True)
        found = [digest(tokenizer.text(call.prompt)) for call in made]
    except EngineError:
        return {}  # it will say so itself when it is asked to judge
    return {} if tuple(found) == known else {"template": "not the bytes that the table knows"}


def _without_adapter(row: GuardRow, listed: GuardRow, options: Mapping[str, Any]) -> dict[str, object]:
    """What verdicts must say where a LoRA guard runs on an engine that loads no adapter."""
    from guardreasoner.engines.load import SERVERS

    if not row.options.get("adapter") or "adapter" in options or row.engine in (*SERVERS, "scripted"):
        return {}
    if row.model == listed.model:
        raise ConfigError(
            f"{row.name} is a LoRA adapter, which engine {row.engine} does not load: "
            "merge it into its base and give --model FOLDER, or use --engine hf"
        )
    return {"adapter": "not loaded: the model given is taken to hold it"}


def _engine(row: GuardRow, extra: dict[str, Any], base_url: str | None) -> Engine:
    from guardreasoner.engines.load import SERVERS, load_engine

    own_url = extra.pop("base_url", None)
    if row.key and row.engine in SERVERS:
        extra.setdefault("key", row.key)
    return load_engine(row.engine, model=row.model, base_url=base_url or own_url, revision=row.revision, **extra)


def check_retired(row: GuardRow, own_model: str, base_url: str | None = None) -> None:
    """Refuse a model that its provider took down, unless another model or server is asked for."""
    if row.retired and row.model == own_model and base_url is None:
        raise ConfigError(
            f"{row.name}: its provider took {row.model} down on {row.retired}; "
            f"its place is taken by {row.current}: add --model {row.current}"
        )


def policy_for(row: GuardRow, given: Any) -> Mapping[str, str]:
    """The user's policies for a guard that follows one."""
    if not row.options.get("policy_arg"):
        raise ConfigError(f"{row.name} follows no policy but the one it was trained on; leave --policy out")
    return given if isinstance(given, Mapping) else read_policy(given)


def own_frame(row: GuardRow, given: Any) -> dict[str, str]:
    """The user's own copy of a prompt text: a file for the guard's one text, or a folder with `<side>.txt` files."""
    if isinstance(given, Mapping):
        return {str(k): str(v) for k, v in given.items()}
    sides = dict(row.options.get("frame", {}))
    if not sides:
        raise ConfigError(f"{row.name} uses its model's own chat template; leave the option frame out")
    path = Path(given)
    wanted = [side for side, value in sides.items() if isinstance(value, Frame)] or list(sides)
    if path.is_file() and len(wanted) > 1:
        raise ConfigError(f"{row.name} has several texts; give a folder with {', '.join(f'{w}.txt' for w in wanted)}")
    try:
        texts = {s: (path if path.is_file() else path / f"{s}.txt").read_text(encoding="utf-8") for s in wanted}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the prompt text cannot be read ({type(error).__name__})") from None
    return {**{s: v for s, v in sides.items() if isinstance(v, str)}, **texts}


def resolve(value: Any, what: str) -> Any:
    """Every frame in a value, read."""
    if isinstance(value, Frame):
        return read_frame(value, what=what)
    if isinstance(value, Mapping):
        return {k: resolve(v, what) for k, v in value.items()}
    return value
