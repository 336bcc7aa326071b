"""Guards that give the probabilities they are told, and a tokenizer that sees words."""

from pathlib import Path

from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.guards.base import Judging
from guardreasoner.records import write_jsonl
from guardreasoner.types import TASKS, Example, Exchange, Labels, Task, Verdict


class Scripted(Judging):
    """A guard of requests."""

    tasks = (Task.prompt_harm,)

    def __init__(self, name, scores):
        self.name, self.scores = name, scores

    def judge(self, exchanges):
        return [self._verdict(e) for e in exchanges]

    def _verdict(self, exchange):
        p = self.scores[int(exchange.id.removeprefix("own-"))]
        labels = Labels(prompt_harm="harmful" if p >= 0.5 else "unharmful")
        scores = {t.value: p if t in self.tasks else None for t in TASKS}
        return Verdict(exchange.id, self.name, "full", "ok", labels, scores)


def scripted_runs(folder: Path, gold: list[str], **guards: list[float]) -> list[Path]:
    """A finished run of each guard, by name, over a file of rows of one's own with this gold."""
    examples = [Example(Exchange(f"own-{i}", f"text {i}"), Labels(prompt_harm=g)) for i, g in enumerate(gold)]
    file = folder / "own.jsonl"
    write_jsonl(file, [{"id": e.exchange.id, "prompt": e.exchange.prompt} | e.gold.as_dict() for e in examples])
    for name, scores in guards.items():
        evaluate(Scripted(name, scores), {"own": examples}, folder / name, inputs=[file])
    return [folder / name for name in guards]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Character spans of words: `Engine.offsets` of a tokenizer for which every word is a token."""
    spans, start = [], 0
    for part in text.split(" "):
        spans.append((start, start + len(part)))
        start += len(part) + 1
    return spans
