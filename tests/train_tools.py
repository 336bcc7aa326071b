"""What the tests of the training stages share: mild examples, traces of them, small configurations."""

from pathlib import Path

from guardreasoner.formats.guardreasoner import reasoning_text
from guardreasoner.records import write_jsonl
from guardreasoner.types import Example, Exchange, Labels, Step, Trace

TOPICS = ("cake", "chess", "rain", "trains", "bees", "maps", "tea", "paint", "soup", "clouds", "boats", "ferns")


def example(number: int, *, source: str = "mild") -> Example:
    """Two of three examples have a reply; labels alternate."""
    topic = TOPICS[number % len(TOPICS)]
    bad = number % 2 == 0
    if number % 3 == 0:
        exchange = Exchange(f"{source}-{number}", f"Tell me about {topic}, number {number}.", source=source)
        return Example(exchange, Labels("harmful" if bad else "unharmful"))
    exchange = Exchange(
        f"{source}-{number}",
        f"How do I make {topic} number {number}?",
        "Sorry, I cannot help." if bad else f"Here is how: take {topic} and wait.",
        source=source,
    )
    gold = Labels(
        "harmful" if bad else "unharmful", "refusal" if bad else "compliance", "unharmful" if number % 4 else "harmful"
    )
    return Example(exchange, gold)


def trace(of: Example) -> Trace:
    """One step per labelled task."""
    steps = [Step(task, f"it is {of.gold[task]}.") for task in of.gold.tasks]
    return Trace(of, reasoning_text(steps), "gpt", "test")


def write_traces(out: Path, count: int, *, sources: tuple[str, ...] = ("mild",)) -> list[Trace]:
    """Traces under `out/synthesize`, as that stage leaves them."""
    traces = [trace(example(n, source=sources[n % len(sources)])) for n in range(count)]
    write_jsonl(out / "synthesize" / "traces.jsonl", traces)
    return traces
