"""The decision about a verdict: what is flagged, what is blocked, and why.

`decide` reads a verdict's `scores` and `labels`, and writes `flagged`, `fail_mode` and notes; it never changes labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from guardreasoner.serve.policy import ROUTES, Action, KindAction, KindRule, Policy, Rules, Score
from guardreasoner.types import SETTLED, TASKS, FailMode, Status, Task, Verdict

SEVERITY: tuple[KindAction, ...] = ("block", "support", "flag", "pass")
"""The first of these that any task asks for is what happens."""
STOPS = SEVERITY[:2]
REPLY_TASKS = (Task.refusal, Task.response_harm)
LONG = 4_000
"""Characters from which a text that was not judged in time may owe that to its length, which its writer chose."""


def decide(verdict: Verdict, rules: Rules, characters: int = 0) -> Verdict:
    """The verdict with `flagged` and `fail_mode` as the rules want them, and notes that say why.

    Args:
        verdict: any.
        rules: those of the route.
        characters: of what was judged.

    Notes: `action` is what the caller should do (in shadow mode `pass`, and `shadow` says what it would have been),
    `flagged` names the tasks that reached their threshold, `review` is true inside a review band.
    """
    if verdict.status not in SETTLED:
        return _done(verdict, _unjudged(verdict.status, rules, characters), rules)
    kind = _kind(verdict, rules)
    thresholds = {**rules.thresholds, **kind.thresholds} if kind else rules.thresholds
    tasks = [task for task in TASKS if _flags(verdict, task, thresholds)]
    actions: dict[Task, KindAction] = {}
    for task in TASKS:
        band = rules.review.get(task)
        if task in tasks and kind is not None and kind.action is not None:
            actions[task] = kind.action
        elif _within(verdict, task, band):
            actions[task] = rules.review_action
        elif task in tasks:
            actions[task] = rules.action
    if kind is not None and kind.action == "support":
        actions.setdefault(Task.prompt_harm, "support")
    by_task: dict[str, KindAction] = {t.value: a for t, a in actions.items()}
    part = verdict.status if verdict.status != "ok" else verdict.notes.get("unread")
    if part:  # harm was found in what was read, or not; the rest was not judged
        by_task["unread"] = _unjudged(part, rules, characters)
    action: KindAction = next(a for a in SEVERITY if a == "pass" or a in by_task.values())
    notes = {**verdict.notes, "flagged": [t.value for t in tasks]}
    notes |= {"actions": by_task} if by_task else {}
    notes |= {"review": True} if any(_within(verdict, t, band) for t, band in rules.review.items()) else {}
    if rules.thresholds and not verdict.calibrated:
        notes["thresholds"] = "the guard's labels decided: its scores are not calibrated"
    return _done(replace(verdict, notes=notes), action, rules)


def _unjudged(status: Status, rules: Rules, characters: int) -> Action:
    """What becomes of what was not judged."""
    if status == "unread":
        return rules.languages.unsupported
    if status == "input_too_long" or (status == "timeout" and characters > LONG):
        return rules.too_long
    return "block" if rules.fail_mode == "closed" else "pass"


def _done(verdict: Verdict, action: KindAction, rules: Rules) -> Verdict:
    """The verdict with the action taken; in shadow mode it is only noted."""
    flagged = action != "pass"
    mode: FailMode | None = "open" if rules.shadow or action not in STOPS else "closed"
    verdict = replace(verdict, fail_mode=None if verdict.status == "ok" else mode)
    if rules.shadow:
        notes = {**verdict.notes, "shadow": {"action": action, "flagged": flagged}, "action": "pass"}
        return replace(verdict, flagged=False, notes=notes)
    return replace(verdict, flagged=flagged, notes={**verdict.notes, "action": action})


def blocks(verdict: Verdict, tasks: Sequence[Task] = tuple(TASKS)) -> bool:
    """Whether a decided verdict must stop what it was asked about.

    Args:
        tasks: those that matter here: a harmless reply is not stopped because the request was harmful.
    """
    if verdict.notes.get("action") not in STOPS:
        return False
    actions = verdict.notes.get("actions")
    return verdict.status not in SETTLED or not actions or any(actions.get(t) in STOPS for t in (*tasks, "unread"))


def unmatchable(policy: Policy, named: Sequence[str]) -> list[str]:
    """A sentence for each kind of harm in a policy that no verdict can ever have.

    Args:
        policy: the policy.
        named: the kinds that the guard tells without reasoning (its verdicts' `kinds`).
    """
    others = f", and tells only {', '.join(named)}" if named else ""
    return [
        f"the policy's kind {kind.match!r} can never match on route {route}: in mode instant this guard writes nothing "
        f"about the kind of harm{others}"
        for route in ROUTES
        for kind in policy.rules(route).kinds
        if policy.rules(route).mode == "instant" and not any(kind.match.casefold() in n.casefold() for n in named)
    ]


def _kind(verdict: Verdict, rules: Rules) -> KindRule | None:
    """The first row that speaks of the verdict's kind of harm."""
    harm = (verdict.harm or "").casefold()

    def named(kind: KindRule) -> bool:
        word = kind.match.casefold()
        likely = (name.casefold() for name, p in verdict.kinds.items() if p >= kind.probability)
        return word in harm or any(word in name for name in likely)

    return next(filter(named, rules.kinds), None)


def _flags(verdict: Verdict, task: Task, thresholds: Mapping[Task, Score | None]) -> bool:
    if thresholds and task in thresholds:
        limit, score = thresholds[task], verdict.scores.get(task.value)
        if limit is None:
            return False
        if verdict.calibrated and score is not None:
            return score >= limit
    return task is not Task.refusal and getattr(verdict.labels, task.value) == "harmful"


def _within(verdict: Verdict, task: Task, band: tuple[float, float] | None) -> bool:
    score = verdict.scores.get(task.value)
    return band is not None and verdict.calibrated and score is not None and band[0] <= score < band[1]
