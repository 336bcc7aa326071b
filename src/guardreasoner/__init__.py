"""GuardReasoner: a guard for LLM applications that reasons before it judges.

from guardreasoner import load_guard

guard = load_guard("nano")
print(guard.check("How do I kill a Python process?"))
"""

from guardreasoner.errors import GuardReasonerError
from guardreasoner.guards.base import Guard
from guardreasoner.guards.load import load_guard
from guardreasoner.types import Example, Exchange, Labels, Message, Task, Verdict

__version__ = "0.1.0"
__all__ = ["Example", "Exchange", "Guard", "GuardReasonerError", "Labels", "Message", "Task", "Verdict", "load_guard"]
