"""A server's policy: one YAML file, validated as a whole. `decide` applies it.

version: 1
fail_mode: closed
thresholds: {prompt_harm: 0.6, response_harm: 0.5}
review: {prompt_harm: [0.4, 0.6]}
routes:
  proxy: {fail_mode: open, shadow: true}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)

from guardreasoner.engines.http import plain_url
from guardreasoner.errors import ConfigError, UnknownName
from guardreasoner.types import FailMode, Mode, Task, Verdict
from guardreasoner.yaml_files import read_yaml

Action = Literal["block", "flag", "pass"]
KindAction = Literal["block", "flag", "pass", "support"]
Route = str
_WIRES = Path(__file__).parent / "wires"
Window = Literal["last", "last_n", "full"]
ROUTES: tuple[Route, ...] = (*sorted(p.stem for p in _WIRES.glob("[a-z]*.py")), "proxy")
"""One per file in `serve/wires/`, and the proxy."""
REASONING: tuple[Mode, ...] = ("short", "full")
AT_ONCE_S, REASONED_S = 2.0, 20.0
"""Deadlines where a policy names none. A model that reasons writes for a second or more, and may have to be loaded."""
MOST = 1_000_000_000
"""No number of a policy is larger: no clock or memory holds it."""
Whole = Annotated[int, Strict()]
"""Strict: pydantic takes `yes` for 1 otherwise."""
Count = Annotated[int, Strict(), Field(le=MOST)]
Seconds = Annotated[float, Strict(), Field(le=MOST)]
Score = Annotated[float, Strict()]
"""A probability in [0, 1]."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KindRule(_Section):
    """What to do about one kind of harm."""

    match: str = Field(min_length=1)
    """Case-folded; found anywhere in the verdict's `harm`, or in the name of one of its `kinds`."""
    action: KindAction | None = None
    """`support` stops the request and answers with the `support` text, whether or not a task is flagged."""
    thresholds: Mapping[Task, Score | None] = Field(default_factory=dict)
    probability: Score = Field(default=0.5, ge=0, le=1)
    """P at or above which one of the verdict's `kinds` counts."""


class Languages(_Section):
    """What to do about text that the guard cannot read (status `unread`), whatever the fail mode is."""

    unsupported: Action = "flag"


class Rules(_Section):
    """What may differ per route."""

    fail_mode: FailMode = "closed"
    """What becomes of what could not be judged: `closed` blocks it, `open` lets it pass, marked and counted. Text of
    another language and text that is too long have rules of their own."""
    shadow: bool = False
    """Judge and record, never block."""
    mode: Mode = "auto"
    """How much the guard reasons where the caller does not say."""
    deadline_s: Annotated[float, Strict()] | None = Field(default=None, gt=0, le=600)
    """Seconds from the arrival of a request to its answer, judged or `timeout`; null = 2, in `short` and `full` 20."""
    thresholds: Mapping[Task, Score | None] = Field(default_factory=dict)
    """P at or above which a task flags; null = the task never flags; absent = the guard's label decides."""
    review: Mapping[Task, tuple[Score, Score]] = Field(default_factory=dict)
    """Band of P inside which `review_action` is taken, whether or not the threshold is reached."""
    action: Action = "block"
    """What happens to what is flagged."""
    review_action: Action = "flag"
    kinds: tuple[KindRule, ...] = ()
    """First match wins."""
    languages: Languages = Field(default_factory=Languages)
    too_long: Action = "block"
    """What happens to text that was not judged for its length, whatever the fail mode is: its writer chose that."""
    window: Window = "last_n"
    """How much of a conversation is judged together with a turn: nothing before it, `window_n` messages, everything."""
    window_n: Whole = Field(default=4, ge=1, le=100)
    trusted_roles: tuple[Literal["system", "developer", "tool"], ...] = ()
    """Roles whose messages only the operator can write: not judged."""
    message: str = "This was blocked by the content policy."
    """What a blocked caller reads."""
    support: str | None = None
    """The text for a person in a crisis, for kinds of harm with the action `support`."""

    @field_validator("review")
    @classmethod
    def _ordered(cls, bands: Mapping[Task, tuple[Score, Score]]) -> Mapping[Task, tuple[Score, Score]]:
        if any(not 0 <= low < high <= 1 for low, high in bands.values()):
            raise ValueError("a band is [low, high] with 0 <= low < high <= 1")
        return bands

    @field_validator("thresholds")
    @classmethod
    def _probabilities(cls, values: Mapping[Task, Score | None]) -> Mapping[Task, Score | None]:
        if any(v is not None and not 0 <= v <= 1 for v in values.values()):
            raise ValueError("a threshold lies between 0 and 1")
        return values

    @model_validator(mode="after")
    def _supported(self) -> Rules:
        if not (self.support or "").strip() and any(k.action == "support" for k in self.kinds):
            raise ValueError("the action support needs a text: write it under `support`")
        return self

    def deadline(self, mode: Mode | None = None) -> float:
        """Seconds that a request in a mode has; None = in the route's own."""
        return self.deadline_s or (REASONED_S if (mode or self.mode) in REASONING else AT_ONCE_S)

    @property
    def stops_unread(self) -> bool:
        """Whether a request must stop where a part of it cannot be judged."""
        return self.fail_mode == "closed" and not self.shadow

    def answer(self, verdict: Verdict) -> str:
        """What the caller reads in place of what a verdict stopped."""
        return self.support or self.message if verdict.notes.get("action") == "support" else self.message


class Limits(_Section):
    """Bounds on what one request may hold and on what may wait."""

    body_bytes: Count = Field(default=2_000_000, ge=1_000)
    """Counted while reading, whatever the headers say."""
    body_seconds: Seconds = Field(default=10.0, gt=0)
    """From the first byte of a request to the last one of its body."""
    depth: Whole = Field(default=32, ge=4, le=200)
    """Nesting of JSON."""
    items: Count = Field(default=64, ge=1)
    """Exchanges in one request."""
    characters: Count = Field(default=400_000, ge=100)
    """Judged text of one exchange."""
    values: Count = Field(default=50_000, ge=100)
    """Values in one body: items, fields and what they hold."""
    requests: Count = Field(default=512, ge=1)
    """Requests in progress, whatever they wait for; beyond it 429."""
    queue: Count = Field(default=256, ge=1)
    """Exchanges that may wait; beyond it 429."""
    batch: Count = Field(default=16, ge=1)
    """Exchanges judged together."""
    batch_characters: Count = Field(default=16_000, ge=100)
    """Exchanges x longest one, in a batch of more than one."""
    hang_s: Seconds = Field(default=5.0, gt=0)
    """How long past its deadline the guard may stay silent before its process is replaced."""


class ReasoningBudget(_Section):
    """How many reasoning passes callers may cause; null = no limit."""

    per_key: Count | None = Field(default=None, ge=0)
    total: Count | None = Field(default=None, ge=0)
    seconds: Seconds = Field(default=60.0, gt=0)
    """The span that the two counts are for; unused allowance does not add up beyond one span."""


class Cache(_Section):
    """Verdicts kept in memory; off unless `entries` is given."""

    entries: Count = Field(default=0, ge=0)
    ttl_s: Seconds = Field(default=300.0, gt=0)


class Proxy(_Section):
    """`POST /v1/chat/completions` in front of one upstream."""

    upstream: str | None = None
    """Base URL up to and including `/v1`; null = the route is off."""
    parallel: bool = False
    """Ask the upstream while the request is still being judged; nothing is sent before the verdict."""
    stride: Count = Field(default=256, ge=16)
    """Characters of a streamed reply per window step."""
    span: Count = Field(default=2_000, ge=64)
    """Characters of one window: it ends at the newest character and overlaps the one before by `span - stride`."""
    ahead: Count = Field(default=0, ge=0)
    """Characters that may be sent before they are judged: the most that can pass before the cut. 0 = none."""
    reply_characters: Count = Field(default=400_000, ge=100)
    """A longer reply is cut."""
    timeout_s: Seconds = Field(default=120.0, gt=0)
    """Upstream silence that counts as its death."""
    on_block: Literal["message", "error"] = "message"
    """200 with `finish_reason: content_filter`, or 400 with code `content_filter`."""

    @field_validator("upstream")
    @classmethod
    def _plain_url(cls, url: str | None) -> str | None:
        return plain_url(url, "proxy.upstream") if url else None

    @model_validator(mode="after")
    def _overlap(self) -> Proxy:
        if self.stride >= self.span:
            raise ValueError("stride must be smaller than span, or windows do not overlap")
        return self


class Policy(Rules):
    """The whole file: rules for every route, what differs per route, and the server's own settings."""

    version: Whole = Field(default=1, ge=1, le=1)
    routes: Mapping[Route, Mapping[str, Any]] = Field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    """Names by which the server may be called; empty = loopback names only, or any where a key is needed."""
    limits: Limits = Field(default_factory=Limits)
    budget: ReasoningBudget = Field(default_factory=ReasoningBudget)
    cache: Cache = Field(default_factory=Cache)
    proxy: Proxy = Field(default_factory=Proxy)
    log_text: bool = False
    """Write judged text to the log, redacted."""
    _rules: dict[Route, Rules] = PrivateAttr(default_factory=dict)
    _digest: str = PrivateAttr("")

    @field_validator("routes")
    @classmethod
    def _known_routes(cls, routes: Mapping[Route, Any]) -> Mapping[Route, Any]:
        for name in routes:
            if name not in ROUTES:
                raise ValueError(str(UnknownName("route", name, ROUTES)))
        return routes

    def model_post_init(self, context: Any) -> None:
        shared = {name: getattr(self, name) for name in Rules.model_fields if name in self.model_fields_set}
        for route in ROUTES:
            try:
                self._rules[route] = Rules(**{**shared, **self.routes.get(route, {})})
            except ValidationError as error:
                raise _first_error(error, f"routes.{route}") from None
        self._digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def rules(self, route: Route) -> Rules:
        """The rules of one route."""
        return self._rules[route]

    @property
    def digest(self) -> str:
        """Changes whenever anything in the policy does."""
        return self._digest


def read_policy(path: str | Path | None) -> Policy:
    """Read and validate a policy file; None = all defaults.

    Raises:
        UnknownName: a key does not exist; the nearest one is named.
        ConfigError: the file cannot be read, is not YAML, or a value is wrong.
    """
    if path is None:
        return Policy()
    return policy_of(read_yaml(path) or {}, str(path))


def policy_of(data: Any, where: str = "policy") -> Policy:
    """A policy from plain values.

    Raises:
        UnknownName, ConfigError: as `read_policy`.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: a mapping of keys is wanted")
    try:
        return Policy(**{str(k): v for k, v in data.items()})
    except ValidationError as error:
        problem = _first_error(error, "")
    except ConfigError as error:
        problem = error
    problem.args = (f"{where}: {problem}",)
    raise problem from None


def _first_error(error: ValidationError, prefix: str) -> ConfigError:
    """The first complaint as one sentence, without the value that caused it."""
    first = error.errors(include_input=False, include_url=False)[0]
    path = [*([prefix] if prefix else []), *(str(p) for p in first["loc"])]
    if first["type"] == "extra_forbidden":
        return UnknownName("policy key", ".".join(path), _keys(path[:-1]))
    if path[-1:] == ["[key]"]:  # of thresholds and other mappings by task: no others have fixed keys
        return UnknownName("policy key", ".".join(path[:-1]), (".".join([*path[:-2], task]) for task in Task))
    return ConfigError(f"{'.'.join(path) or 'policy'}: {wanted(first)}")


def wanted(complaint: Any) -> str:
    """What a value must be, in words of our own."""
    kind, given = complaint["type"], complaint.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(complaint["msg"]).partition(", ")[2]
    for start, words in WANTED.items():
        if kind.startswith(start):
            return words.format(**given)
    return "this value is not possible here"


WANTED = {
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite_number": "must be a number",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "string_too_short": "must not be empty",
    "string": "must be text",
    "tuple": "must be a list",
    "list": "must be a list",
    "too": "must have another number of items",
    "dict": "must be a mapping",
    "mapping": "must be a mapping",
    "model": "must be a mapping",
    "missing": "is missing",
    "none_required": "must be null",
}
"""Kind of a complaint, or how it begins -> what to say."""


def _keys(section: list[str]) -> Iterator[str]:
    models: dict[str, type[BaseModel]] = {
        "limits": Limits, "budget": ReasoningBudget, "cache": Cache, "proxy": Proxy, "languages": Languages,
        "kinds": KindRule, "routes": Rules,
    }  # fmt: skip
    model = next((models[part] for part in reversed(section) if part in models), Policy)
    return (".".join([*section, name]) for name in model.model_fields)
