"""The forms of a text that a reader, or a model, may see in it: each of them is judged.

An undoing is exact or a guess. What is undone exactly (an entity, a tag without attributes, a sign between letters, a
run of base64 that decodes to English) carries nothing but what it stands for, and replaces the text as written. A guess
(what a leet word means, which strings belong together) makes another form, judged beside the text, and the worst
decides. A simple cipher counts as exact where it turns several unknown words into English.

Bounds: exact undoings are repeated at most `ROUNDS` times, guesses are nested at most `DEPTH` deep, and a text has at
most `MOST_FORMS` forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guardreasoner.guards.disguises import (
    byte_encodings,
    characters,
    ciphers,
    escapes,
    joined_words,
    layout,
    leet,
    letter_codes,
    markup,
    odd_words,
    padding,
    scattered,
    spacing,
    spellings,
)

FAMILIES = (
    letter_codes,
    characters,
    padding,
    escapes,
    markup,
    spacing,
    leet,
    odd_words,
    spellings,
    scattered,
    layout,
    byte_encodings,
    joined_words,
    ciphers,
)
"""In the order in which they are undone."""


def _of_all(table: str) -> tuple[tuple[str, Callable[[str], str]], ...]:
    """The rows of all families: a name for `notes.disguise`, and a function."""
    return tuple(row for family in FAMILIES for row in getattr(family, table, ()))


EXACT, GUESSES, AS_WRITTEN = map(_of_all, ("EXACT", "GUESSES", "AS_WRITTEN"))
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
        return not ciphers.CIPHERS.isdisjoint(self.undone)


def forms(text: str) -> list[Form]:
    """The forms in which a text is judged: one, the text itself, where there is no disguise. Never raises."""
    first = _exact(Form(text))
    made, level = [first], [first]
    for name, undo in AS_WRITTEN if first.text != text else ():
        if (said := undo(text)) != text:
            level.append(Form(said, (name,)))
            exact = _exact(level[-1])
            made += [exact] if all(exact.text != old.text for old in made) else []
    for depth in range(DEPTH):
        if len(made) >= MOST_FORMS:
            break
        fresh: dict[str, tuple[Form, bool]] = {}
        for new, certain in (guess for form in level for guess in _guessed(form)):
            fresh.setdefault(new.text, (new, certain))
        found = [(_exact(new), certain) for new, certain in fresh.values()]
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
    read = next(text for name, text, _ in found if name == "leet")
    if read != form.text:  # leet is deciphered once it is read
        changed = sum(a != b for a, b in zip(form.text.split(), read.split(), strict=False))
        found = [(name, text, name == "leet" and 3 * changed >= ciphers.CERTAIN) for name, text, _ in found]
    elif not form.deciphered:
        found += ciphers.ciphers(form.text)
    found = [one for one in found if one[1] != form.text]
    if not found:
        found = [(name, text, False) for name, text in ciphers.lossy(form.text) if text != form.text]
    yield from ((Form(text, (*form.undone, name)), certain) for name, text, certain in found)
