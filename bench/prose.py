"""Long harmless texts that no guard here was trained on: documentation of the standard library and installed packages.

Prose is taken from docstrings, package descriptions and Python's help topics; code, tables and lists are left out. The
package is the source: `half` keeps fitting and testing on different packages.
"""

import ast
import importlib.metadata
import random
import re
import sys
import sysconfig
import zlib
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

SKIPPED = {"tests", "test", "idlelib", "lib2to3", "guardreasoner", "__pycache__"}
MOST_FILES = 25
"""Of one package."""
PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE_END = re.compile(r"[.!?:]['\")]*$")


def is_prose(paragraph):
    """Whether a paragraph is running text: words, sentences, hardly any code."""
    words = paragraph.split()
    letters = sum(c.isalpha() or c in " ,.'" for c in paragraph)
    plain = not re.search(r">>>|::|^\s*[-*=+|:]|http|[{}<>\[\]_=`|\\]", paragraph, re.M)
    return len(words) >= 12 and letters > 0.94 * len(paragraph) and plain and bool(SENTENCE_END.search(paragraph))


def docstrings(path):
    """All docstrings of a Python file."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield text


def texts_by_source():
    """Source -> its texts as they stand."""
    for folder in (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"]):
        taken = Counter()
        for path in sorted(Path(folder).rglob("*.py")):
            inside = path.relative_to(folder).parts
            if SKIPPED & set(inside) or "site-packages" in inside or not 4_000 < path.stat().st_size < 200_000:
                continue
            taken[inside[0]] += 1
            if taken[inside[0]] <= MOST_FILES:
                yield inside[0].removesuffix(".py"), docstrings(path)
    for package in importlib.metadata.distributions():
        yield package.name.lower(), [package.metadata.get_payload() or package.metadata.get("Description") or ""]
    from pydoc_data.topics import topics

    for name, text in topics.items():
        yield f"topic {name}", [text]


@cache  # reading every package takes minutes
def paragraphs(half=None):
    """Source -> its prose paragraphs, each once; of all sources, or of one half of them (0 or 1)."""
    found, seen = defaultdict(list), set()
    for source, texts in texts_by_source():
        if half is not None and zlib.crc32(source.encode()) % 2 != half:
            continue
        for text in texts:
            for part in PARAGRAPH.split(text):
                paragraph = " ".join(part.split())
                if paragraph not in seen and is_prose(paragraph):
                    seen.add(paragraph)
                    found[source].append(paragraph)
    return found


def prose(words, count, *, half=None, seed=0):
    """`count` texts of about `words` words, each of paragraphs of one or more sources, no paragraph twice in a text."""
    rng = random.Random(f"{seed}:{words}")
    known = {s: p for s, p in paragraphs(half).items() if sum(len(t.split()) for t in p) > 200}
    made = []
    while len(made) < count:
        source = rng.choice(sorted(known))
        pool, text = known[source][:], []
        start = rng.randrange(len(pool))
        pool = pool[start:] + pool[:start]
        while sum(len(t.split()) for t in text) < words:
            if not pool:
                pool = known[rng.choice(sorted(known))][:]
            text.append(pool.pop(0))
        cut = " ".join("\n\n".join(text).split(" ")[: words + 40])
        made.append(cut[: cut.rfind(".") + 1] or cut)
    return made


if __name__ == "__main__":
    found = paragraphs()
    total = sum(len(t.split()) for p in found.values() for t in p)
    print(f"{len(found)} sources, {sum(map(len, found.values()))} paragraphs, {total} words", file=sys.stderr)
    print(prose(100, 1)[0])
