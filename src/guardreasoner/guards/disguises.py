"""Disguises undone before judging: each form of a text that a reader, or a model, may get out of it.

Two kinds of undoing. Some are exact: an entity, a tag without attributes or a sign between letters carries nothing but
what it stands for, and the text with it undone is judged instead of the text as written. The others are guesses (what
decodes from a run of base64, what a leet word means): their forms are judged beside it, and the worst decides.

Bounds: exact undoings are repeated at most `ROUNDS` times, guesses are nested at most `DEPTH` deep, and a
text has at most `MOST_FORMS` forms. Each undoing is linear in the length of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guardreasoner.guards import encodings, spellings
from guardreasoner.guards.normalise import differs, normalise

ROUNDS, DEPTH, MOST_FORMS = 3, 2, 6


@dataclass(frozen=True, slots=True)
class Form:
    """A text to judge."""

    text: str
    undone: tuple[str, ...] = ()
    """What was undone, in order."""


def _normalised(text: str) -> str:
    return normalise(text) if differs(text) else text


EXACT: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("characters", _normalised),
    ("entities", encodings.entities),
    ("percent", encodings.percent),
    ("escapes", encodings.escapes),
    ("quoted-printable", encodings.quoted_printable),
    ("markup", spellings.markup),
    ("symbols", spellings.symbols),
    ("spaced letters", spellings.spaced),
    ("layout", spellings.layout),
    ("joined words", spellings.joined),
)
GUESSES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("encoded", encodings.runs),
    ("hidden markup", spellings.hidden_markup),
    ("leet", spellings.leet),
    ("assembled", spellings.assembled),
    ("respaced", spellings.respaced),
)


def forms(text: str) -> list[Form]:
    """The forms in which a text is judged: one, the text itself, where there is no disguise. Never raises."""
    written = Form(text)
    first = _exact(written)
    made, level = [first], [first] if first == written else [first, written]
    for _ in range(DEPTH):
        level = [new for form in level for new in map(_exact, _guessed(form))]
        for new in level:
            if len(made) < MOST_FORMS and all(new.text != old.text for old in made):
                made.append(new)
    return made


def _exact(form: Form) -> Form:
    for _ in range(ROUNDS):
        before = form
        for name, undo in EXACT:
            if (text := undo(form.text)) != form.text:
                form = Form(text, form.undone if name in form.undone else (*form.undone, name))
        if form == before:
            break
    return form


def _guessed(form: Form) -> Iterator[Form]:
    found = False
    for name, text in (*((name, undo(form.text)) for name, undo in GUESSES), *spellings.ciphers(form.text)):
        if text != form.text:
            yield Form(text, (*form.undone, name))
            found = True
    for name, text in () if found else spellings.lossy(form.text):
        if text != form.text:
            yield Form(text, (*form.undone, name))
