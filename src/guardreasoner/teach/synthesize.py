"""Synthesis: a teacher writes reasoning for labelled examples (paper section 3.1).

Writes `DIR/synthesize/traces.jsonl` (`Trace`), `validation.jsonl` (`Example`) and `rejects.jsonl` (why an example has
no trace). Answers of a language model also go to `answers.jsonl`: a run that was killed repeats no call it paid for.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guardreasoner.data.mix import DataConfig, draw, input_files, load_mix, load_written
from guardreasoner.data.quoted_reasoning import quoted
from guardreasoner.data.written_reasoning import Written
from guardreasoner.errors import ConfigError
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.formats.conclusion import names_harm
from guardreasoner.records import Appender, from_dict, read_records, rows_digest, write_jsonl
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.teach.ask import Outputs, TeacherRun, ask_all
from guardreasoner.teach.batch import run_batches
from guardreasoner.teach.config import LABELS_ONLY, RESUMABLE, SynthesizeConfig
from guardreasoner.teach.cost import CostBudget, budget_of, forecast_line
from guardreasoner.teach.imported import table1
from guardreasoner.teach.pace import Pace
from guardreasoner.teach.question import Reject, TeacherAnswer
from guardreasoner.teach.teachers import Teacher, load_teacher
from guardreasoner.types import Example, Step, Trace


def synthesize(
    data: DataConfig | Sequence[Example],
    config: SynthesizeConfig,
    *,
    out: str | Path,
    data_dir: str | Path | None = None,
    teacher: Teacher | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write traces for a data mix or for given examples; returns the manifest. The same call again resumes.

    Args:
        data: the recipe's data section, or examples of your own.
        config: the recipe's synthesize section.
        out: the run; files go to `out/synthesize`.
        data_dir: the data folder that `data` names files in.
        teacher: a teacher of your own instead of the one that `config` names.

    Raises:
        ConfigError: a setting is wrong, a key is missing, or the cost cap was reached (run again with a higher one).
        EngineError: the teacher's server refuses the key or has stopped answering.
        RunFolderError: the folder is in use or belongs to another configuration.
    """
    described = asdict(data) if isinstance(data, DataConfig) else {"examples": len(data), "digest": rows_digest(data)}
    inputs = input_files(data, data_dir) if isinstance(data, DataConfig) else []
    settings = {"data": described, **asdict(config)}
    with RunFolder(out, "synthesize", config=settings, inputs=inputs, fresh=fresh, resumable_keys=RESUMABLE) as folder:
        if folder.manifest is not None:
            return folder.manifest
        if isinstance(data, DataConfig):
            counts: Counts
            train, validation, counts = load_mix(data, data_dir)
            write_jsonl(folder.path / "validation.jsonl", validation)
        else:
            train, counts = unique(data), Counts(in_=len(data))
        more: dict[str, Any] = {}
        if teacher is not None or config.teacher != "written":
            more = _write(train, config, folder, teacher=teacher, quiet=quiet)
        elif isinstance(data, DataConfig):
            texts = load_written(data, data_dir)
            if config.quote:
                texts = quoted(train, texts)
                quoting = [e for e in train if e.exchange.id in texts]
                counts.drop("no quotation", len(train) - len(quoting))
                train = quoting
            _copy(train, config, texts, folder)
        else:
            raise ConfigError("examples of your own have no reasoning beside them; choose another synthesize.teacher")
        return _finish(folder, train, counts, more)


def unique(examples: Sequence[Example]) -> list[Example]:
    """The examples as a list, if every id is unique."""
    if len({e.exchange.id for e in examples}) != len(examples):
        raise ConfigError("two examples have the same id; ids must be unique, a run resumes by them")
    return list(examples)


def _write(
    train: Sequence[Example], config: SynthesizeConfig, folder: RunFolder, *, teacher: Teacher | None, quiet: bool
) -> dict[str, Any]:
    with Appender(folder.path / "traces.jsonl") as traces, Appender(folder.path / "rejects.jsonl") as rejects:
        done = {row["example"]["exchange"]["id"] for row in traces.existing} | {row["id"] for row in rejects.existing}
        outputs = Outputs(traces, rejects, done)
        taught = []
        for example in train:
            if _taught(example, config):
                taught.append(example)
            elif example.exchange.id not in done:
                outputs.settle(Trace(example, "", LABELS_ONLY, wire_format.VERSION))
        return _run(_teach(taught, config, outputs, folder=folder, teacher=teacher, quiet=quiet))


def _copy(train: Sequence[Example], config: SynthesizeConfig, texts: Mapping[str, Written], folder: RunFolder) -> None:
    """Copy the reasoning that comes with the rows; an example lacking it for some task keeps its labels only."""
    traces = []
    for example in train:
        made = texts.get(example.exchange.id) if _taught(example, config) else None
        text = reasoning(example, made) if made else ""
        traces.append(Trace(example, text, "written" if text else LABELS_ONLY, wire_format.VERSION))
    write_jsonl(folder.path / "rejects.jsonl", [])
    write_jsonl(folder.path / "traces.jsonl", traces)


def _taught(example: Example, config: SynthesizeConfig) -> bool:
    """Whether the example is in the share that gets reasoning."""
    return draw(config.seed, "share", example.exchange.id) < config.share


def reasoning(example: Example, made: Written) -> str:
    """The written steps of an example's tasks in our form, the kind of harm named where harm is first concluded."""
    tasks, steps = example.exchange.tasks, list[Step]()
    last = {step.task: step for step in made.steps}
    kind = made.harm if made.harm and not names_harm(made.harm) else None
    for step in (s for s in made.steps if s.task in tasks):
        if (
            kind
            and step.task
            and step is last[step.task]
            and f"{wire_format.ENDINGS[step.task][0]} harmful." in step.text
        ):
            step, kind = replace(step, text=f"{step.text} The kind of harm is {kind}."), None
        steps.append(step)
    return wire_format.reasoning_text(steps) if {s.task for s in steps} == set(tasks) else ""


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Run a coroutine to its end, even inside a running event loop (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _finish(folder: RunFolder, train: Sequence[Example], counts: Counts, more: Mapping[str, Any]) -> dict[str, Any]:
    """Put the traces in the order of the examples, count, and write the manifest."""
    order = {example.exchange.id: number for number, example in enumerate(train)}
    path = folder.path / "traces.jsonl"
    traces = sorted(read_records(Trace, path), key=lambda t: order[t.example.exchange.id])
    write_jsonl(path, traces)
    rejects = sorted(read_records(Reject, folder.path / "rejects.jsonl"), key=lambda r: order[r.id])
    write_jsonl(folder.path / "rejects.jsonl", rejects)
    counts.out = len(traces)
    for reject in rejects:
        counts.drop(f"rejected: {reject.reasons[0]}")
    if not traces:
        raise ConfigError(
            f"the teacher gave no usable trace for {len(train)} examples; see {folder.path}/rejects.jsonl"
        )
    statistics = {name: asdict(row) for name, row in table1(traces).items()}
    reasoned = sum(1 for t in traces if t.reasoning)
    return folder.finish(counts, table1=statistics, reasoned=reasoned, labels_only=len(traces) - reasoned, **more)


def estimate(data: DataConfig, config: SynthesizeConfig, *, data_dir: str | Path | None = None) -> str:
    """What a run would cost, in a sentence; finds every error that can be found before the first call."""
    train, validation, _ = load_mix(data, data_dir)
    taught = [e for e in train if _taught(e, config)]
    rows = f"{len(train):,} training rows, {len(validation):,} validation rows"
    if config.teacher == "written":
        return f"{rows}; their reasoning is written already, at no cost"
    return f"{rows}; {forecast_line(taught, config)}"


async def _teach(
    examples: Sequence[Example],
    config: SynthesizeConfig,
    outputs: Outputs,
    *,
    folder: RunFolder,
    teacher: Teacher | None,
    quiet: bool,
) -> dict[str, Any]:
    """Ask about every example without a trace or a reject; returns the manifest's entry."""
    budget = budget_of(config)
    with Appender(folder.path / "answers.jsonl") as answers:
        state = _state(config, teacher or load_teacher(config), outputs, answers=answers, budget=budget)
        folder.tick()  # from now on there are answers that were paid for
        todo = [e for e in examples if e.exchange.id not in outputs.done]
        if not quiet and todo:
            print(forecast_line(todo, config), file=sys.stderr)
        try:
            async with _progress(state, len(examples), len(todo), quiet=quiet):
                if config.teacher == "openai-batch" and teacher is None:
                    await run_batches(state, todo, folder.path)
                else:
                    await ask_all(state, todo)
        finally:
            await state.teacher.close()
    left = sum(1 for e in examples if e.exchange.id not in outputs.done)
    if left:
        raise ConfigError(
            f"the cost cap of ${config.max_cost:,.2f} is reached with {left:,} of {len(examples):,} examples to go "
            f"(${budget.spent:,.4f} spent); raise synthesize.max_cost and run the same command to continue"
        )
    return {
        "calls": state.calls,
        "prompt_tokens": state.prompt_tokens,
        "completion_tokens": state.completion_tokens,
        "dollars": round(budget.spent, 6),
    }


def _state(
    config: SynthesizeConfig, teacher: Teacher, outputs: Outputs, *, answers: Appender, budget: CostBudget
) -> TeacherRun:
    """The state of a run, including the answers and the cost of earlier runs."""
    pace = Pace(config.requests_per_minute, config.tokens_per_minute)
    state = TeacherRun(config, teacher, outputs, answers, {}, budget, pace)
    for row in answers.existing:
        answer = from_dict(TeacherAnswer, row)
        state.count(answer)
        if answer.id not in outputs.done:
            state.kept.setdefault(answer.id, []).append(answer)
    budget.spent = budget.cost(state.prompt_tokens, state.completion_tokens)
    state.proven = any(row.get("reasoning") for row in outputs.traces.existing)
    return state


@asynccontextmanager
async def _progress(state: TeacherRun, total: int, todo: int, *, quiet: bool) -> AsyncIterator[None]:
    """Show rate, cost and time left on stderr while the body runs."""
    bar = Progress(
        TextColumn("synthesize"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} · {task.fields[cost]} · {task.fields[rejects]} rejected"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )
    done = total - todo
    before = len(state.outputs.done)
    with bar:
        task = bar.add_task("synthesize", total=total, completed=done, rate="", cost="", rejects=0)

        def show() -> None:
            made = len(state.outputs.done) - before
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{made / elapsed:,.1f}/s" if elapsed else "-"
            rejects = made - state.usable
            bar.update(task, completed=done + made, rate=rate, cost=f"${state.budget.spent:,.2f}", rejects=rejects)

        async def tick() -> None:
            while True:
                show()
                await asyncio.sleep(0.5)

        ticking = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticking.cancel()
            show()
