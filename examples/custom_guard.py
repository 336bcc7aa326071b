"""A guard of your own in fifteen lines: `guardreasoner evaluate --guard examples/custom_guard.py:shouting ...`"""

REFUSALS = ("i can't", "i cannot", "i'm sorry", "i am unable")


def shouting(prompt: str, response: str | None) -> dict[str, float | bool]:
    """Finds shouting harmful: the share of capitals among the letters is the score."""

    def loudness(text: str) -> float:
        letters = [c for c in text if c.isalpha()]
        return sum(c.isupper() for c in letters) / len(letters) if letters else 0.0

    answer: dict[str, float | bool] = {"prompt_harm": loudness(prompt)}
    if response is not None:
        answer["refusal"] = response.lower().startswith(REFUSALS)
        answer["response_harm"] = loudness(response)
    return answer
