"""Disguises undone before judging: every form of a text that a reader, or a model, may see in it.

An undoing is exact or a guess. What is undone exactly (an entity, a tag without attributes, a sign between letters, a
run of base64 that decodes to English) carries nothing but what it stands for, and replaces the text as written. A guess
(what a leet word means, which strings belong together) makes another form, judged beside the text, and the worst
decides. A simple cipher counts as exact where it turns several unknown words into English.

Bounds: exact undoings are repeated at most `ROUNDS` times, guesses are nested at most `DEPTH` deep, and a text has at
most `MOST_FORMS` forms. Each undoing is linear in the length of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guardreasoner.guards import encodings, normalise, parts, spellings

ROUNDS, DEPTH, MOST_FORMS = 3, 2, 6


@dataclass(frozen=True, slots=True)
class Form:
    """A text to judge."""

    text: str
    undone: tuple[str, ...] = ()
    """What was undone, in order."""

    @property
    def deciphered(self) -> bool:
        """Whether a simple cipher was undone: another one in it would be found by chance."""
        return not spellings.CIPHERS.isdisjoint(self.undone)


def _normalised(text: str) -> str:
    return normalise.normalise(text) if normalise.differs(text) else text


EXACT: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("Braille", encodings.braille),
    ("upside down", normalise.upright),
    ("characters", _normalised),
    ("entities", encodings.entities),
    ("percent", encodings.percent),
    ("escapes", encodings.escapes),
    ("quoted-printable", encodings.quoted_printable),
    ("markup", spellings.markup),
    ("symbols", spellings.symbols),
    ("spaced letters", spellings.spaced),
    ("stretched", spellings.stretched),
    ("broken words", spellings.broken),
    ("layout", spellings.layout),
    ("encoded", encodings.certain_runs),
    ("joined words", spellings.joined),
)
GUESSES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("encoded", encodings.runs),
    ("hidden markup", spellings.hidden_markup),
    ("leet", spellings.leet),
    ("rot47", spellings.rot47),
    ("assembled", parts.assembled),
    ("respaced", spellings.respaced),
    ("acrostic", spellings.acrostic),
)
AS_WRITTEN = (
    ("encoded", encodings.runs),
    ("encoded", encodings.hidden),
    ("rot47", spellings.rot47),
    ("assembled", parts.assembled),
)


def forms(text: str) -> list[Form]:
    """The forms in which a text is judged: one, the text itself, where there is no disguise. Never raises."""
    first = _exact(Form(text))
    made, level = [first], [first]
    for name, undo in AS_WRITTEN if first.text != text else ():  # their signs may have been taken for disguise
        if (said := undo(text)) != text:
            level.append(Form(said, (name,)))
            exact = _exact(level[-1])
            made += [exact] if all(exact.text != old.text for old in made) else []
    for depth in range(DEPTH):
        found = [(_exact(new), certain) for form in level for new, certain in _guessed(form)]
        if depth == 0 and any(certain for _, certain in found):
            made = made[1:]  # the cipher's text says all that the text as written does
        level = [new for new, _ in found]
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


def _guessed(form: Form) -> Iterator[tuple[Form, bool]]:
    """Forms of a form, and whether they say all that it does."""
    found = [(name, undo(form.text), False) for name, undo in GUESSES]
    ciphers = () if form.deciphered else spellings.ciphers(form.text)
    found = [(name, text, certain) for name, text, certain in (*found, *ciphers) if text != form.text]
    if not found:
        found = [(name, text, False) for name, text in spellings.lossy(form.text) if text != form.text]
    yield from ((Form(text, (*form.undone, name)), certain) for name, text, certain in found)
