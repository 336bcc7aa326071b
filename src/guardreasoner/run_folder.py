"""Run folders: one configuration, one process at a time, resumable.

A stage appends finished rows to a `.jsonl` file. When it is done it writes `manifest.json`: what was asked, read, made
and dropped, and why.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Self

from guardreasoner.errors import ConfigError, DataError, MissingDependency, RunFolderError
from guardreasoner.records import dumps, now, read_object, sha256, write_atomic


@dataclass
class Counts:
    """How many rows came in, went out and were dropped, by reason: `in = out + sum(dropped)`."""

    in_: int = 0
    out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, rows: int = 1) -> None:
        """Count rows that came in and do not go out."""
        self.dropped[reason] += rows

    def as_dict(self) -> dict[str, Any]:
        """The manifest's `counts`.

        Raises:
            ValueError: rows are unaccounted for.
        """
        if self.in_ != self.out + sum(self.dropped.values()):
            raise ValueError(f"counts do not add up: {self.in_} in, {self.out} out, {dict(self.dropped)} dropped")
        return {"in": self.in_, "out": self.out, "dropped": dict(sorted(self.dropped.items()))}


def refuse_overwriting(out: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse to write over, or into a folder that holds, what is to be read; links are followed.

    Raises:
        ConfigError: an input is `out`, or is in it.
    """
    target = Path(out).resolve()
    for given in inputs:
        source = Path(given).resolve()
        same = source.exists() and target.exists() and source.samefile(target)
        if same or source == target or target in source.parents:
            what = "is its own output" if same or source == target else f"lies in the output {out}"
            raise ConfigError(f"{given} {what}, which would overwrite it; give another output")


REFUSALS = (ConfigError, DataError, MissingDependency)
"""Errors of what was asked: where nothing was done yet, they leave no folder behind."""


class RunFolder:
    """One stage's folder `DIR/<stage>`: locked to one process, bound to one configuration, resumable.

    As a context manager it takes away again what a first sitting made that ends in a refusal, or before anything was
    written; work that was ticked (`tick`) stays.

    Raises on opening:
        RunFolderError: another process holds it, it was made with another configuration (the key is named), or
            `fresh` would empty a folder that no run made.
        ConfigError: an input is in the folder, and would be overwritten.
    """

    def __init__(
        self,
        out: str | Path,
        stage: str,
        *,
        config: Mapping[str, Any],
        inputs: Sequence[str | Path] = (),
        fresh: bool = False,
        resumable_keys: Sequence[str] = (),
        processes: int = 1,
        kind: str = "",
    ) -> None:
        """Args:
        config: all that decides what the stage makes.
        resumable_keys: keys of `config` that may change between a run and its resumption.
        processes: how many work on the stage.
        kind: what makes the folder, where the stage does not say; `fresh` empties none of another kind.
        """
        self.path = Path(out) / stage
        self.stage, self.kind = stage, kind or stage
        refuse_overwriting(self.path, inputs)
        self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self._found = {entry.name for entry in self.path.iterdir()}
        self._lock = self._acquire()
        self._worked = "run.json" in self._found
        try:
            if fresh:
                self._empty()
                self._found, self._worked = set(), False
            self.config = json.loads(dumps(dict(config)))
            self.inputs = {name: sha256(p) for name, p in input_names(inputs, Path(out)).items()}
            self._claim(set(resumable_keys))
            self._sit(processes)
        except BaseException as error:
            self.__exit__(type(error))
            raise
        self.started = self._state()["started"]

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished stage, or None."""
        path = self.path / "manifest.json"
        return read_object(path) if path.exists() else None

    def finish(self, counts: Counts | Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Write the manifest; from now on the stage is done. `seconds` are those of all its sittings."""
        self.tick()
        manifest = {
            "stage": self.stage,
            "config": self.config,
            "inputs": self.inputs,
            "versions": versions(),
            "counts": counts.as_dict() if isinstance(counts, Counts) else dict(counts),
            "started": self.started,
            "finished": now(),
            "seconds": round(sum(s["seconds"] for s in self._sittings), 3),
            **({"sittings": len(self._sittings)} if len(self._sittings) > 1 else {}),
            **more,
        }
        write_atomic(self.path / "manifest.json", json.dumps(json.loads(dumps(manifest)), indent=2) + "\n")
        return manifest

    def tick(self, **facts: float) -> None:
        """Note that the stage is at work: what a kill leaves counts as far as the last tick, and stays.

        Args:
            facts: numbers of this sitting to keep, such as `peak_memory_bytes`.
        """
        self._worked = True
        self._write_state(facts)

    def ticking(self, progress: Callable[..., None] | None) -> Callable[..., None]:
        """A callback that ticks, once a second at most, and tells another one."""
        last = -math.inf

        def tell(*said: Any) -> None:
            nonlocal last
            if time.monotonic() - last > 1:
                self.tick()
                last = time.monotonic()
            if progress:
                progress(*said)

        return tell

    def _write_state(self, facts: Mapping[str, float]) -> None:
        self._sittings[-1] |= {"seconds": round(time.monotonic() - self._clock, 3), **facts}
        write_atomic(self.path / "run.json", json.dumps({**self._state(), "sittings": self._sittings}, indent=2) + "\n")

    @property
    def device_hours(self) -> float:
        """Hours of all sittings, each times its processes, as far as the last tick."""
        return float(round(sum(s["seconds"] * s["processes"] for s in self._sittings) / 3600, 4))

    def most(self, fact: str) -> float:
        """The highest value of a fact over all sittings."""
        return float(max((s[fact] for s in self._sittings if fact in s), default=0))

    def _sit(self, processes: int) -> None:
        self._clock = time.monotonic()
        self._sittings: list[dict[str, Any]] = self._state().get("sittings", [])
        if self.manifest is None:
            self._sittings.append({"started": now(), "seconds": 0.0, "processes": processes})
            self._write_state({})

    def log(self, **values: Any) -> None:
        """Append one line to `log.jsonl`."""
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as stream:
            stream.write(dumps({"at": now(), **values}) + "\n")

    def close(self) -> None:
        """Release the folder."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        refused = kind is not None and issubclass(kind, REFUSALS)
        if kind is not None and not self._worked and (refused or self._bare()):
            self._undo()
        self.close()

    def _bare(self) -> bool:
        """Whether this sitting, the first one, has written nothing but its own state."""
        new = (entry for entry in self.path.iterdir() if entry.name not in (*self._found, ".lock", "run.json"))
        files = (p for entry in new for p in (entry, *entry.rglob("*")) if p.is_file())
        return not any(p.stat().st_size for p in files)

    def _undo(self) -> None:
        """Take away what this sitting, the first one, has made."""
        for entry in self.path.iterdir():
            if entry.name not in self._found:
                _remove(entry)
        for folder in self._made:
            with suppress(OSError):  # it holds other files
                folder.rmdir()

    def _acquire(self) -> IO[str]:
        try:
            import fcntl  # here, so that judging and reading work without it
        except ModuleNotFoundError:
            raise RunFolderError("run folders need the file locks of Linux or macOS; on Windows, work in WSL") from None
        stream = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 - held until close
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            raise RunFolderError(
                f"{self.path} is in use by another process; wait for it, or give another --out"
            ) from None
        return stream

    def _empty(self) -> None:
        entries = [entry for entry in self.path.iterdir() if entry.name != ".lock"]
        if entries and not (self.path / "run.json").exists():
            raise RunFolderError(
                f"{self.path} holds files that no run made, so --fresh leaves them; give another --out"
            )
        made = self._kind()
        if made not in ("", self.kind):
            raise RunFolderError(f"{self.path} holds a run of {made}, so --fresh leaves it; give another --out")
        for entry in entries:
            _remove(entry)

    def _kind(self) -> str:
        """What made the folder, as far as it says; a state that cannot be read belongs to nothing worth keeping."""
        try:
            return str(self._state().get("kind", ""))
        except (DataError, OSError):
            return ""

    def _state(self) -> dict[str, Any]:
        return read_object(self.path / "run.json")

    def _claim(self, resumable: set[str]) -> None:
        if not (self.path / "run.json").exists():
            state = {"kind": self.kind, "config": self.config, "inputs": self.inputs, "started": now()}
            write_atomic(self.path / "run.json", json.dumps(state, indent=2) + "\n")
            return
        before = self._state()
        for kind, old, new in (("config key", before["config"], self.config), ("input", before["inputs"], self.inputs)):
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) != new.get(key) and key not in resumable:
                    raise RunFolderError(
                        f"{self.path} was made with another {kind} {key!r} "
                        f"({old.get(key)!r} there, {new.get(key)!r} now); give another --out, or --fresh to start over"
                    )


def input_names(inputs: Sequence[str | Path], out: Path) -> dict[str, Path]:
    """Names of inputs that stay the same when a run is copied, moved or named by another path.

    Below the run: the path inside it. Elsewhere: the file's name, with as many of its folders as tell it from others.
    """
    root, named = out.resolve(), {}
    paths = [Path(p).resolve() for p in inputs]
    for path in dict.fromkeys(paths):
        if path.is_relative_to(root):
            named[path.relative_to(root).as_posix()] = path
            continue
        for length in range(1, len(path.parts) + 1):
            tail = path.parts[-length:]
            if not any(other != path and other.parts[-length:] == tail for other in paths):
                break
        named["/".join(tail)] = path
    return named


def _remove(entry: Path) -> None:
    import shutil

    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results, where installed."""
    found = {"python": platform.python_version()}
    names = "guardreasoner onnxruntime torch transformers trl peft accelerate vllm openai"
    for name in names.split():
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
