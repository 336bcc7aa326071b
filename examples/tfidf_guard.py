"""A guard of your own in one file: TF-IDF and logistic regression, one classifier per task.

    guardreasoner evaluate --guard examples/tfidf_guard.py:TfidfGuard --data DATA --out RUN

It reads the labelled rows of `DATA/train/*.jsonl` (DATA = the environment variable GUARDREASONER_DATA, or `--option
folder=FOLDER`), fits in about a minute, and is the floor that any guard with a language model in it should beat.
Thresholds come from whole sources that training did not see, because a random split flatters; no benchmark row is read.
`--option use=permissive` trains on permissively licensed rows only.
"""

import os
import zlib
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from guardreasoner.errors import ConfigError
from guardreasoner.guards.base import Judging
from guardreasoner.records import read_jsonl
from guardreasoner.types import TASKS, Exchange, Labels, Verdict

MAX_CHARS = 2000
CAP = 2000
"""Most rows of one source, so that none dominates."""
FOLDS = 3


def text_of(task, prompt, response):
    """What the classifier of a task reads: the request alone, or the reply with the request before it."""
    parts = [prompt] if not TASKS[task].needs_response else [response or "", prompt]
    return "\n\n".join(part[:MAX_CHARS] for part in parts)


def classifier():
    """Words and pairs of words into a logistic regression."""
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, max_features=100_000, sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(C=4.0, class_weight="balanced", solver="liblinear"))


def read_rows(folder, use):
    """Labelled rows with their source, at most CAP of each."""
    taken = {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        rows = [row for _, row in read_jsonl(path) if use == "all" or row.get("use") == use]
        rows.sort(key=lambda row: zlib.crc32(str(row["id"]).encode()))
        taken[path.stem] = rows[:CAP]
    return [(source, row) for source, rows in taken.items() for row in rows]


class TfidfGuard(Judging):
    """Scores each task with a classifier of its own; no reasoning."""

    name = "tfidf"

    def __init__(self, folder=None, use="all"):
        data = os.environ.get("GUARDREASONER_DATA")
        if not folder and not data:
            raise ConfigError("the TF-IDF example trains on DATA/train/*.jsonl: set GUARDREASONER_DATA=DATA")
        folder = Path(folder or Path(data) / "train")
        rows = read_rows(folder, use)
        self.models = {}
        self.thresholds = {}
        for task in TASKS:
            known = [(s, r) for s, r in rows if r.get(task) and (r.get("response") or not TASKS[task].needs_response)]
            self._fit(task, known)
        self.tasks = tuple(t for t in TASKS if t in self.models)
        if not self.tasks:
            raise ConfigError(
                f"no labelled rows in {folder}; set GUARDREASONER_DATA to a folder that holds train/*.jsonl"
            )

    def _fit(self, task, rows):
        """Threshold with the best F1 on sources that training did not see, then the classifier anew on all rows."""
        texts = [text_of(task, row["prompt"], row.get("response")) for _, row in rows]
        truth = np.array([row[task] == TASKS[task].positive for _, row in rows], dtype=bool)
        sources = [source for source, _ in rows]
        if len(set(truth)) < 2 or len(set(sources)) < FOLDS:
            return
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
        unseen = cross_val_predict(classifier(), texts, truth, groups=sources, cv=folds, method="predict_proba")[:, 1]
        precision, recall, at = precision_recall_curve(truth, unseen)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        self.thresholds[task] = float(at[int(np.argmax(f1[:-1]))])
        self.models[task] = classifier().fit(texts, truth)

    def judge(self, exchanges):
        scores = {
            task: self.models[task].predict_proba([text_of(task, e.prompt, e.response) for e in exchanges])[:, 1]
            for task in (self.tasks if exchanges else ())
        }
        return [self._verdict(e, {t: float(s[i]) for t, s in scores.items()}) for i, e in enumerate(exchanges)]

    def _verdict(self, exchange: Exchange, scores):
        asked = {task: scores[task] for task in self.tasks if task in exchange.tasks}
        labels = Labels.of(
            {t: TASKS[t].positive if s >= self.thresholds[t] else TASKS[t].negative for t, s in asked.items()}
        )
        return Verdict(
            exchange_id=exchange.id,
            guard=self.name,
            mode="instant",
            status="ok",
            labels=labels,
            scores={task.value: asked.get(task) for task in TASKS},
            flagged="harmful" in (labels.prompt_harm, labels.response_harm),
        )
