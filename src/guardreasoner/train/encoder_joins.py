"""Rows joined from several, and rows with misspellings, so that the guard finds harm in long or misspelt text."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from guardreasoner.errors import ConfigError
from guardreasoner.train.encoder_rows import HATEFUL, EncoderRow
from guardreasoner.yaml_files import packaged

_FILE = packaged("train/encoder_rows.yaml")
GLUE, ORDERS, CHORES = (tuple(_FILE[name]) for name in ("glue", "orders", "chores"))


@dataclass
class _Pools:
    """Material to join."""

    harmful: list[EncoderRow]
    benign: list[EncoderRow]
    bad_replies: list[EncoderRow]
    good_replies: list[EncoderRow]
    refusals: list[EncoderRow]
    hateful: list[EncoderRow]
    long: list[str]


def _pools(rows: Sequence[EncoderRow]) -> _Pools:
    asks = [r for r in rows if r.response is None and r.source not in HATEFUL and len(r.prompt) < 400]
    replied = [r for r in rows if r.response and len(r.response) < 1600]
    benign_replies = [r for r in replied if r.labels[2] == 0.0 and r.labels[1] == 0.0 and r.labels[0] == 0.0]
    return _Pools(
        harmful=[r for r in asks if r.labels[0] == 1.0 and r.attack != 1.0],
        benign=[r for r in asks if r.labels[0] == 0.0],
        bad_replies=[r for r in replied if r.labels[2] == 1.0 and r.source not in ("diasafety", "safetext")],
        good_replies=[r for r in replied if r.labels[2] == 0.0],
        refusals=[r for r in replied if r.labels[1] == 1.0 and len(r.response or "") < 500],
        hateful=[r for r in rows if r.source in HATEFUL and r.labels[0] is not None],
        long=[r.response or "" for r in benign_replies if len(r.response or "") > 500],
    )


def joined(rows: Sequence[EncoderRow], count: int, chosen: random.Random) -> list[EncoderRow]:
    """Rows made of several: what is harmful in one place of a text is harmful in the whole, and what is not is not."""
    pools = _pools(rows)
    empty = [f.name.replace("_", " ") for f in fields(pools) if not getattr(pools, f.name)]
    if count and empty:
        raise ConfigError(f"rows cannot be joined: there are none of the kind {', '.join(empty)}; set data.joined to 0")
    makers = ((_questions, 5), (_inside, 5), (_history, 3), (_reply_inside, 4), (_lent, 4), (_steered, 2), (_said, 2))
    made: list[EncoderRow] = []
    while len(made) < count:
        maker = chosen.choices([m for m, _ in makers], [w for _, w in makers])[0]
        made.append(maker(pools, chosen))
    return made


def _one(pools: _Pools, chosen: random.Random) -> EncoderRow:
    return chosen.choice(pools.harmful if chosen.random() < 0.5 else pools.benign)


def _questions(pools: _Pools, chosen: random.Random) -> EncoderRow:
    """One request, harmful or not, among harmless ones."""
    row = _one(pools, chosen)
    others = [r.prompt for r in chosen.choices(pools.benign, k=chosen.choice((1, 2, 2, 3, 5, 9)))]
    others.insert(chosen.randrange(len(others) + 1), row.prompt)
    glue = chosen.choice(GLUE)
    if chosen.random() < 0.25:
        text = "\n".join(f"{n}. {part}" for n, part in enumerate(others, 1))
    else:
        text = glue.join(others)
    return replace(row, prompt=text, source="joined")


def _place(text: str, part: str, chosen: random.Random) -> str:
    """`part` between two sentences of `text`, at its beginning or its end."""
    ends = [0, len(text), *(m.end() for m in re.finditer(r"[.!?]\s+|\n+", text))]
    at = chosen.choice(ends)
    return f"{text[:at].rstrip()}{chosen.choice((' ', chr(10)))}{part} {text[at:]}".strip()


def _passage(pools: _Pools, chosen: random.Random) -> str:
    return " ".join(chosen.choices(pools.long, k=chosen.choice((1, 1, 2))))[: chosen.choice((250, 500, 500, 900, 1500))]


def _inside(pools: _Pools, chosen: random.Random) -> EncoderRow:
    """One request inside a long harmless text."""
    row = _one(pools, chosen)
    return replace(row, prompt=_place(_passage(pools, chosen), row.prompt, chosen), source="joined")


def _history(pools: _Pools, chosen: random.Random) -> EncoderRow:
    """Earlier harmless turns before a request."""
    row = _one(pools, chosen)
    turns = [r for r in chosen.choices(pools.good_replies, k=chosen.choice((1, 1, 2, 3))) if r.labels[0] == 0.0]
    before = "".join(f"[user] {t.prompt[:300]}\n[assistant] {(t.response or '')[:400]}\n" for t in turns)
    return replace(row, prompt=before + row.prompt, source="joined")


def _reply_inside(pools: _Pools, chosen: random.Random) -> EncoderRow:
    """A reply, harmful or not, before or after harmless text."""
    row = chosen.choice(pools.bad_replies if chosen.random() < 0.55 else pools.good_replies)
    text = _place(_passage(pools, chosen), row.response or "", chosen)
    refusal = row.labels[1] if row.labels[1] == 0.0 else None
    return replace(row, response=text, labels=(row.labels[0], refusal, row.labels[2]), source="joined")


def _lent(pools: _Pools, chosen: random.Random) -> EncoderRow:
    """A request with a reply to another one, so that no label follows from another."""
    row, share = _one(pools, chosen), chosen.random()
    if share < 0.4:
        return replace(
            row, response=chosen.choice(pools.refusals).response, labels=(row.labels[0], 1.0, 0.0), source="lent"
        )
    if share < 0.65:
        reply = chosen.choice(
            [r for r in chosen.choices(pools.good_replies, k=8) if r.labels[1] == 0.0] or pools.refusals
        )
        return replace(row, response=reply.response, labels=(row.labels[0], None, 0.0), source="lent")
    asked, reply = chosen.choice(pools.benign), chosen.choice(pools.bad_replies)
    return replace(reply, prompt=asked.prompt, labels=(0.0, 0.0, 1.0), source="lent")


def _steered(pools: _Pools, chosen: random.Random) -> EncoderRow:
    """An order to the model, alone, in a tool's result or inside a long text; and the same text without it."""
    harmful = chosen.random() < 0.4
    deed = chosen.choice(pools.harmful).prompt if harmful else chosen.choice(CHORES)
    order = chosen.choice(ORDERS).format(deed)
    calm = chosen.random() < 0.35
    text = _passage(pools, chosen) if calm else _place(_passage(pools, chosen), order, chosen)
    if chosen.random() < 0.3 and not calm:
        text = order
    if chosen.random() < 0.4:
        ask = chosen.choice(pools.benign).prompt
        text = f"[user] {ask}\n[tool] {text}\n" + chosen.choice(("summarise it please", "what does it say?", ask))
    label = 0.0 if calm else 1.0 if harmful else None
    return EncoderRow(text, None, (label, None, None), None, 0.0 if calm else 1.0, "steered")


def _said(pools: _Pools, chosen: random.Random) -> EncoderRow:
    """A statement about people as the reply to a harmless request."""
    row = chosen.choice(pools.hateful)
    ask = chosen.choice(pools.benign).prompt
    kind = row.kind if row.labels[0] else None
    return EncoderRow(ask, row.prompt, (0.0, 0.0, row.labels[0]), kind, 0.0, "said", row.licence)


def worn(row: EncoderRow, chosen: random.Random) -> EncoderRow:
    """The row with letters doubled, dropped, exchanged or written as digits."""
    return replace(row, prompt=_wear(row.prompt, chosen), response=row.response and _wear(row.response, chosen))


def _wear(text: str, chosen: random.Random) -> str:
    letters, rate = list(text), chosen.choice((0.02, 0.05, 0.1))
    leet = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5"}
    for i in range(1, len(letters)):
        if chosen.random() < rate and letters[i].isalpha():
            way = chosen.randrange(4)
            if way == 0:
                letters[i] = ""
            elif way == 1:
                letters[i] *= 2
            elif way == 2:
                letters[i - 1], letters[i] = letters[i], letters[i - 1]
            else:
                letters[i] = leet.get(letters[i].lower(), letters[i])
    return "".join(letters)
