"""The report as one HTML page that needs no network and runs no script.

Everything from outside passes through Jinja's autoescape. Figures are images in data URIs, so nothing in them can act.
The policy in the head allows only such images and this page's own style sheet (by hash). Text that gold or a guard
calls harmful is blurred, by style sheet alone, until the reader asks for it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any

from guardreasoner.errors import need
from guardreasoner.report.blocks import Document
from guardreasoner.report.figures import split_name
from guardreasoner.report.sections.numbers import TASK_NAMES
from guardreasoner.report.worth_reading import SideBySide, harmful, visible
from guardreasoner.types import TASKS
from guardreasoner.yaml_files import in_package

_CODE = re.compile("`([^`]+)`")


def render_html(document: Document) -> str:
    """The whole page."""
    jinja = need("jinja2", "eval")
    templates = in_package("report/templates")
    style = (templates / "report.css").read_text("utf-8")
    environment = jinja.Environment(
        loader=jinja.FunctionLoader(lambda name: (templates / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    safe = need("markupsafe", "eval")
    environment.filters |= {"visible": visible, "uri": _uri, "breakable": _breakable(safe.Markup),
                            "prose": _prose(safe), "kind": lambda b: type(b).__name__}  # fmt: skip
    page: str = environment.get_template("report.html.j2").render(
        document=document,
        style=style,
        policy=_policy(style),
        names=TASK_NAMES,
        tasks=list(TASKS),
        covers=_covers,
        numbering=_numbering(),
    )
    return page


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = f"style-src 'sha256-{digest}'; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _breakable(markup: Any) -> Callable[[str], Any]:
    """Names that may break between their words; the words themselves are escaped."""
    return lambda name: markup("<wbr>").join(split_name(visible(name)))


def _prose(safe: Any) -> Callable[[str], Any]:
    """Sentences, what stands between backticks as code; everything in them is escaped first."""
    return lambda text: safe.Markup(_CODE.sub(r"<code>\1</code>", str(safe.escape(visible(text)))))


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _covers(shown: SideBySide) -> bool:
    return harmful(shown.gold, *(verdict for _, verdict in shown.verdicts))


def _numbering() -> Any:
    """A function that counts from 1, for ids of the page."""
    count = iter(range(1, 1_000_000))
    return lambda: next(count)
