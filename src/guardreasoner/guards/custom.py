"""Users' own guards: a Python object by name, or a row in a YAML file.

    --guard my_guards:strict          an attribute of a module that Python can import
    --guard ./my_guard.py:strict      an attribute of a file; only what you name is run
    --guard my_guard.yaml             a row of the table; data only, nothing in it is imported or run

An attribute may be a guard (anything with `judge`), a class of guards, a function of one exchange, GuardBench's
`moderate(conversations)`, or an any-guardrail object. See docs/custom-guards.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from guardreasoner.errors import ConfigError, GuardReasonerError, UnknownName, printable
from guardreasoner.formats.base import FORMATS, format_of, label
from guardreasoner.guards.base import Guard, GuardRow, Judging, unjudged, validate
from guardreasoner.ranges import build
from guardreasoner.types import TASKS, Exchange, FailMode, Labels, Mode, Task, Usage, Verdict
from guardreasoner.yaml_files import read_yaml

THRESHOLD = 0.5
PROVIDER_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
"""Variables that a row in a file may name where it goes to the provider itself."""
KEY_PREFIX = "GUARD_KEY"
"""How every other variable begins that a row in a file may name."""
VLLM_CODE = ("load_format", "hf_overrides", "trust_remote_code", "hf_config_path", "model_loader_extra_config")
"""Arguments of vLLM that load other code or weights than those of the model."""
Answer = Mapping[str, float | str | bool | None]


class FunctionGuard(Judging):
    """A guard from a function of a request and a reply.

    The function returns a mapping of task name to an answer: a probability of the positive label, the label itself,
    True or False for the positive or negative one, or None where it does not know.
    """

    def __init__(
        self,
        function: Callable[[str, str | None], Answer],
        *,
        name: str | None = None,
        tasks: Sequence[Task] = tuple(TASKS),
        fail_mode: FailMode = "closed",
    ) -> None:
        self.function = function
        self.name = name or str(getattr(function, "__name__", "custom"))
        self.tasks = tuple(tasks)
        self.fail_mode: FailMode = fail_mode

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        return [self._judge(exchange) for exchange in exchanges]

    def _judge(self, exchange: Exchange) -> Verdict:
        validate(exchange)
        verdict = Verdict(exchange.id, self.name, "instant", "ok", usage=Usage(passes=1))
        try:
            answer = self.function(exchange.prompt, exchange.response)
            labels, scores = read_answer(answer, [t for t in exchange.tasks if t in self.tasks])
        except (ValueError, TypeError, KeyError) as error:
            problem = f"the function's answer cannot be read ({type(error).__name__})"
            return unjudged(verdict, "unparsed", problem, self.fail_mode)
        except Exception as error:
            return unjudged(verdict, "unavailable", f"the function failed ({type(error).__name__})", self.fail_mode)
        return replace(verdict, labels=labels, scores=scores, flagged=labels.harmful)


def read_answer(answer: Answer, tasks: Sequence[Task]) -> tuple[Labels, dict[str, float | None]]:
    """Labels and scores from what a function returned.

    Raises:
        ValueError, TypeError: an answer is no label and no probability.
    """
    labels: dict[Task, str] = {}
    scores: dict[str, float | None] = dict.fromkeys(t.value for t in TASKS)
    for task in tasks:
        value = answer.get(task.value)
        if value is None:
            continue
        if isinstance(value, bool):
            labels[task] = label(task, value)
        elif isinstance(value, str):
            labels[task] = value
        else:
            score = float(value)
            if not 0.0 <= score <= 1.0:
                raise ValueError("a probability is between 0 and 1")
            scores[task.value], labels[task] = score, label(task, score >= THRESHOLD)
    return Labels.of(labels), scores


def load_object(name: str, *, mode: Mode = "auto", fail_mode: FailMode = "closed", **options: Any) -> Guard:
    """A guard from `module:attribute` or `file.py:attribute`.

    Args:
        name: what to load; a file is run once, as `import` would.
        mode: passed on to a class that takes it.
        fail_mode: for functions, and passed on to a class that takes it.
    """
    where, _, attribute = name.rpartition(":")
    found: Any = _module(where)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UnknownName(f"object in {where}", part, (n for n in dir(found) if not n.startswith("_")))
        found = getattr(found, part)
    if inspect.isclass(found):
        found = _construct(found, name, {"mode": mode, "fail_mode": fail_mode}, options)
    elif options:
        raise ConfigError(f"{name} is no class, so it takes no option {next(iter(options))!r}")
    return as_guard(found, name=attribute, fail_mode=fail_mode)


def as_guard(found: Any, *, name: str, fail_mode: FailMode = "closed") -> Guard:
    """Any object of the kinds above as a guard."""
    from guardreasoner.guards.interop import AnyGuardrailGuard, ModerateGuard

    if callable(getattr(found, "judge", None)):
        if not isinstance(found, Guard):
            raise ConfigError(f"{name} has `judge` but not all of a guard's parts; derive it from guards.base.Judging")
        return found
    if callable(getattr(found, "validate", None)):
        return cast(Guard, AnyGuardrailGuard(found, name=name, fail_mode=fail_mode))
    if callable(found):
        if "conversations" in inspect.signature(found).parameters:
            return cast(Guard, ModerateGuard(found, name=name, fail_mode=fail_mode))
        return cast(Guard, FunctionGuard(found, name=name, fail_mode=fail_mode))
    raise ConfigError(f"{name} is a {type(found).__name__}, not a guard, a class of guards, or a function")


def _module(where: str) -> Any:
    path = Path(where)
    try:
        return _run_file(path) if path.suffix == ".py" else importlib.import_module(where)
    except ModuleNotFoundError as error:
        if path.suffix != ".py" and error.name and where.split(".")[0] == error.name.split(".")[0]:
            raise ConfigError(f"there is no module {where!r} on the path; give file.py:attribute for a file") from None
        raise ConfigError(f"{where} needs {error.name}, which is not installed") from None
    except SyntaxError as error:
        raise ConfigError(f"{where}, line {error.lineno}: not Python ({error.msg})") from None
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{where} failed while it was loaded ({type(error).__name__}: {printable(str(error))})"
        ) from None


def _run_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"_guard_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _construct(kind: type[Any], name: str, defaults: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    try:
        parameters = inspect.signature(kind).parameters  # a ValueError, where a class written in C tells none
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        unknown = [k for k in options if k not in parameters and not open_ended]
        if unknown:
            raise ConfigError(f"{name} takes no option {unknown[0]!r}; known: {', '.join(parameters) or 'none'}")
        return kind(**{k: v for k, v in defaults.items() if k in parameters}, **options)
    except GuardReasonerError:
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {printable(str(error))}"
        raise ConfigError(f"{name} could not be made ({problem})") from None


def read_row(path: str | Path) -> GuardRow:
    """A row of the guard table from a YAML file: the fields of `GuardRow` by name; data only."""
    file = Path(path)
    found = read_yaml(file)
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: a guard row is a mapping with at least format, engine and model")
    known = [f.name for f in fields(GuardRow)]
    for key in found:
        if key not in known:
            raise UnknownName(f"key in {file}", str(key), known)
    missing = [k for k in ("format", "engine", "model") if not isinstance(found.get(k), str)]
    if missing:
        raise ConfigError(f"{file}: {missing[0]!r} is missing, or is not a text")
    if found["format"] not in FORMATS:
        raise ConfigError(f"{file}: there is no format {found['format']!r}; known: {', '.join(FORMATS)}")
    return _row(file, found)


def _safe(file: Path, found: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What must be added so that a row, whoever wrote it, sends no secret to a server of its own choosing."""
    from guardreasoner.engines.load import SERVERS

    own_server = found["engine"] in SERVERS and options.get("base_url") is not None
    for name in filter(None, (found.get("key"), options.get("key"))):
        allowed = () if own_server else PROVIDER_KEYS
        if not isinstance(name, str) or not (name in allowed or name.startswith(KEY_PREFIX)):
            raise ConfigError(
                f"{file}: key must name a variable that begins with {KEY_PREFIX}"
                + ("" if own_server else f", or one of {', '.join(PROVIDER_KEYS)}")
                + "; no other secret of the environment is sent to the server of a guard row"
            )
    if found["engine"] == "vllm":
        for name in options:
            if name in VLLM_CODE or name.endswith(("_cls", "_class", "_parser", "_plugin", "_processors")):
                raise ConfigError(f"{file}: {name} is not an option of a guard row: it can run code")
    return {"key": KEY_PREFIX} if own_server and "key" not in options and not found.get("key") else {}


def _row(file: Path, found: Mapping[str, Any]) -> GuardRow:
    try:
        tasks = tuple(Task(t) for t in found.get("tasks", tuple(TASKS)))
    except (ValueError, TypeError):
        raise ConfigError(f"{file}: tasks are a list of {', '.join(TASKS)}") from None
    options = found.get("options") or {}
    if not isinstance(options, dict):
        raise ConfigError(f"{file}: options are a mapping")
    if any(isinstance(x, bool) for k, v in options.items() for x in (k, *(v if isinstance(v, list) else ()))):
        raise ConfigError(f"{file}: YAML reads yes and no as true and false; put them in quotes")
    options = {**options, **_safe(file, found, options)}
    row = GuardRow(**{"name": file.stem, **found, "tasks": tasks, "options": options})
    if row.format != "guardreasoner":
        kind = format_of(row.format).Options
        own = {f.name for f in fields(kind)}
        build(kind, {k: v for k, v in options.items() if k in own}, f"{file}: options")
    return row
