"""Judge one exchange and act on the verdict: python examples/judge_one.py "a request" ["a reply"]"""

import sys

from guardreasoner import load_guard

request, reply = [*sys.argv[1:], "How do I kill a Python process?", None][:2]
with load_guard() as guard:
    verdict = guard.check(request, reply)

for step in verdict.steps:  # of guards that write their reasoning
    print("-", step.text)
if verdict.status != "ok":
    print(f"not judged ({verdict.status}): {verdict.error}")
print("block it" if verdict.flagged else "let it pass", verdict.labels.as_dict())
