"""One chat request in the proxy: what is sent to the upstream, and how its answer is judged."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from guardreasoner.records import dumps
from guardreasoner.serve.access.limits import Refused
from guardreasoner.serve.chat.conversation import (
    REQUEST_CHARACTERS,
    Conversation,
    JudgedConversation,
    Memory,
    Round,
    end_of,
    worst,
)
from guardreasoner.serve.chat.reply import LABELS
from guardreasoner.serve.core.judge import Caller
from guardreasoner.serve.decide import REPLY_TASKS, blocks
from guardreasoner.serve.fields import coded
from guardreasoner.serve.policy import Rules
from guardreasoner.serve.service import Service, brief
from guardreasoner.types import TASKS, Exchange, Labels, Verdict

Body = dict[str, Any]
RETRYABLE = ("timeout", "unavailable", "overloaded")


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One request on its way."""

    service: Service
    rules: Rules
    ask: Caller
    body: Body
    """All that is sent on but the messages."""
    talk: Conversation
    memory: Memory
    unread: int
    """Things that could not be judged and pass all the same (fail mode `open`)."""
    authorization: str | None

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def lone(self) -> bool:
        """Whether the guard must be asked about parts by themselves."""
        return not self.service.core.worker.guard.judges_parts

    async def judge(self, exchanges: Sequence[Exchange]) -> Sequence[Verdict]:
        """Decided verdicts on parts of the request."""
        return await self.service.core.judge_all(exchanges, self.ask)

    async def judge_reply(self, text: str, found: JudgedConversation) -> Verdict:
        """The verdict on what the upstream said, or on a window of it: with the request that it answers, and by itself.

        The time for it begins now. Overload is a verdict here, not a refusal.
        """
        asked = self._exchanges(text, found)
        ask = replace(self.ask, arrived=None, tasks=REPLY_TASKS)
        verdict = worst_reply(await self.service.core.settle(asked, ask))
        return verdict if found.verdict is None else _with_request(verdict, found.verdict)

    def _exchanges(self, text: str, found: JudgedConversation) -> list[Exchange]:
        turn = self._last
        said = (turn.response or "")[-REQUEST_CHARACTERS:] + text
        prompt, context = end_of(turn.prompt, found.context)
        together = Exchange("reply", prompt, said, context)
        both = self.lone and (prompt or context)
        return [together, Exchange("reply", "", said)] if both else [together]

    async def judge_labels(self, envelope: Mapping[str, Any]) -> Body:
        """The envelope of a reply; names that the upstream chose stay only where a verdict lets them pass."""
        kept = dict(envelope)
        if not coded(str(kept.get("id", ""))):
            kept["id"] = f"chatcmpl-{uuid.uuid4().hex}"
        wanted = str(self.body.get("model") or "")
        for name in LABELS:
            text = str(kept.get(name) or "")
            if not text or coded(text.removeprefix(wanted)):  # what was asked for, or a version of it
                continue
            blocked = self.memory.recall(text, None)
            if blocked is None:
                (verdict,) = await self.service.core.settle([Exchange(name, text)], replace(self.ask, arrived=None))
                self.memory.keep(text, None, verdict)
                blocked = blocks(verdict)
            if blocked:
                kept[name] = wanted if name == "model" else None
        return kept

    def remember(self, text: str, verdict: Verdict) -> None:
        """Not to judge this reply again when it comes back as history."""
        turn = self._last
        self.memory.keep(turn.prompt, (turn.response or "") + text, verdict)

    async def open(self, cut: frozenset[int] = frozenset()) -> httpx.Response:
        """The upstream's answer, its head only."""
        client, url = self.service.upstream, f"{self.service.policy.proxy.upstream}/chat/completions"
        assert client is not None
        messages = [m for i, m in enumerate(self.talk.messages) if i not in cut]
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if self.authorization:
            headers["authorization"] = self.authorization
        content = dumps({**self.body, "messages": messages}).encode()
        try:
            answer = await client.send(client.build_request("POST", url, content=content, headers=headers), stream=True)
        except httpx.HTTPError as error:
            why = f"the upstream cannot be reached ({type(error).__name__})"
            raise Refused(502, why, "upstream_unreachable") from None
        if answer.status_code != 200:
            await answer.aclose()
            status = answer.status_code if 400 <= answer.status_code < 500 else 502
            again = answer.headers.get("retry-after", "")
            more = {"retry-after": again} if again.isdecimal() else {}
            raise Refused(status, f"the upstream answered {answer.status_code}", "upstream_error", more)
        return answer

    def report(self, found: JudgedConversation, replies: Sequence[Verdict], dropped: int = 0) -> Body:
        """What goes to the client beside the reply: the verdicts, and what was not passed on."""
        return {
            "request": None if found.verdict is None else brief(found.verdict),
            "replies": [brief(v) for v in replies],
            "removed_messages": len(found.cut),
            "unread": self.unread,
            "dropped": dropped,
        }

    def word(self, found: JudgedConversation, replies: Sequence[Verdict]) -> str:
        """The verdict in one word, for a header: blocked, unjudged, flagged or passed."""
        verdicts = [*([] if found.verdict is None else [found.verdict]), *replies]
        if any(blocks(v, REPLY_TASKS) for v in replies):
            return "blocked"
        if self.unread or found.passed_unjudged or any(v.fail_mode == "open" for v in verdicts):
            return "unjudged"
        return "flagged" if any(v.flagged for v in verdicts) else "passed"

    @property
    def _last(self) -> Round:
        return self.talk.turns[-1] if self.talk.turns else Round("", None, ())


def worst_reply(verdicts: Sequence[Verdict]) -> Verdict:
    """As `worst`, by the tasks of a reply only."""
    stops = [v for v in verdicts if blocks(v, REPLY_TASKS)]
    return worst(stops or verdicts)


def _with_request(verdict: Verdict, request: Verdict) -> Verdict:
    """A reply's verdict with what was found about its request, where the guard was not asked again."""
    labels, scores = dict(verdict.labels.as_dict()), dict(verdict.scores)
    for task in TASKS:
        if labels[task.value] is None and task not in REPLY_TASKS:
            labels[task.value], scores[task.value] = request.labels[task], request.scores.get(task.value)
    return replace(verdict, labels=Labels.of(labels), scores=scores)
