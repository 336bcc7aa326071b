"""The report: right numbers, nothing hostile acts, nothing is fetched, F1 never stands alone."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser

import pytest

from guardreasoner.cli.main import main
from guardreasoner.errors import DataError
from guardreasoner.evaluate.contestants import contestants
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.evaluate.seen_in_training import exposure, sources_of
from guardreasoner.guards.base import Judging
from guardreasoner.guards.constant import ConstantGuard
from guardreasoner.guards.ours import NANO_FOLDER
from guardreasoner.records import write_jsonl
from guardreasoner.report.build import build
from guardreasoner.report.content import document
from guardreasoner.report.markdown import escaped, render_markdown
from guardreasoner.report.page import render_html
from guardreasoner.report.sections.scores import score_rows
from guardreasoner.report.worth_reading import harmful_rows, mistakes, side_by_side, visible
from guardreasoner.report.write import write_report
from guardreasoner.types import TASKS, Example, Exchange, Labels, Review, Step, Task, Verdict

XSS = (
    "<script>document.title='pwned'</script>",
    "<img src=x onerror=document.title='pwned'>",
    "<svg onload=document.title='pwned'>",
    "<svg><script>document.title='pwned'</script></svg>",
    "</td></tr></table><script>document.title='pwned'</script>",
    "\"><script>document.title='pwned'</script>",
    "'><script>document.title='pwned'</script>",
    "</title><script>document.title='pwned'</script>",
    "</style><script>document.title='pwned'</script>",
    "</textarea><script>document.title='pwned'</script>",
    "<iframe srcdoc=\"<script>parent.document.title='pwned'</script>\"></iframe>",
    "<iframe src=javascript:parent.document.title='pwned'></iframe>",
    "<a href=\"javascript:document.title='pwned'\">x</a>",
    "<body onload=document.title='pwned'>",
    "<details open ontoggle=document.title='pwned'>",
    "<input autofocus onfocus=document.title='pwned'>",
    "<video><source onerror=document.title='pwned'></video>",
    "<math><mtext><img src onerror=document.title='pwned'></mtext></math>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css>",
    "<base href=http://127.0.0.1:9/>",
    "<object data=http://127.0.0.1:9/></object>",
    "<embed src=http://127.0.0.1:9/>",
    "<form action=http://127.0.0.1:9/><button>x</button></form>",
    "<style>*{background:url(http://127.0.0.1:9/)}</style>",
    "{{ 7*7 }}{% raw %}{% endraw %}",
    "{{ report.__class__.__mro__ }}",
    "<!--<script>document.title='pwned'</script>-->",
    "&lt;script&gt;document.title='pwned'&lt;/script&gt;",
    "<noscript><p title=\"</noscript><img src=x onerror=document.title='pwned'>\">",
    "\x1b]0;pwned\x07\x1b[31m\u202epwned\u200b",
)


class Echo(Judging):
    """Answers by keyword and repeats the request in its reasoning, as a tricked guard would."""

    def __init__(self, name, keyword, *, scored=True, steps=True):
        self.name, self.keyword, self.scored, self.steps = name, keyword, scored, steps
        self.tasks = tuple(TASKS)

    def judge(self, exchanges):
        return [self._verdict(e) for e in exchanges]

    def _verdict(self, exchange):
        said = {t: TASKS[t].positive if self.keyword in exchange.prompt else TASKS[t].negative for t in exchange.tasks}
        p = 0.9 if self.keyword in exchange.prompt else 0.2 + len(exchange.prompt) % 10 / 50
        scores = {t.value: p if t in exchange.tasks and self.scored else None for t in TASKS}
        steps = (Step(Task.prompt_harm, f"It says “{exchange.prompt}”. {len(exchange.prompt)} letters."),)
        return Verdict(
            exchange.id, self.name, "full", "ok", Labels.of(said), scores, harm=exchange.prompt[:40],
            steps=steps if self.steps else (), text=exchange.prompt,
        )  # fmt: skip


def rows(
    n, *, text=lambda i: f"please {'steal' if i % 3 == 0 else 'bake'} cake {i}", reply=False, positive=False, name="r"
):
    found = []
    for i in range(n):
        harmful = positive or i % 3 == 0 or i % 10 == 1
        label = "harmful" if harmful else "unharmful"
        gold = {"prompt_harm": label} if not reply else {"response_harm": label}
        found.append(
            Example(
                Exchange(f"{name}{i}", text(i), "a reply" if reply else None),
                Labels(**gold),
                ("adversarial", "vanilla")[i % 2],
            )
        )
    return found


def own_file(path, examples):
    write_jsonl(
        path,
        [
            {"id": e.exchange.id, "prompt": e.exchange.prompt, "response": e.exchange.response, "category": e.category}
            | e.gold.as_dict()
            for e in examples
        ],
    )
    return path


@pytest.fixture
def made(tmp_path):
    """Two guards and the constant over two files of one's own, one of them all positive."""
    sets = {
        "mixed": rows(60),
        "risky": rows(20, positive=True, name="risky-"),
        "replies": rows(40, reply=True, name="reply-"),
    }
    files = [own_file(tmp_path / f"{name}.jsonl", examples) for name, examples in sets.items()]
    guards = (Echo("alert", "steal"), Echo("sleepy", "steal cake 3", scored=False), ConstantGuard())
    for guard in guards:
        evaluate(guard, sets, tmp_path / guard.name, config={"mode": "full"}, inputs=files)
    return [tmp_path / guard.name for guard in guards]


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.urls = Counter(), Counter(), []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            self.attributes[name] += 1
            if name in ("src", "href", "action", "data", "srcset", "poster", "background", "style", "content"):
                self.urls.append((tag, name, value))


def parsed(html):
    tags = Tags()
    tags.feed(html)
    return tags


def test_a_report_over_runs_says_everything_once(made, tmp_path, capsys):
    assert main(["report", *map(str, made), "--out", str(tmp_path / "out"), "--title", "Three guards"]) == 0
    printed = capsys.readouterr().out
    assert "report.html" in printed
    html = (tmp_path / "out" / "report.html").read_text()
    markdown = (tmp_path / "out" / "report.md").read_text()
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    for text in (html, markdown):
        assert "Three guards" in text
        assert "always positive" in text
        assert "more than chance would give" in text
        assert "Adversarial and plain requests" in text
    prompt = next(t for t in numbers["tables"] if t["task"] == "prompt_harm")
    assert prompt["columns"] == ["mixed", "risky"]
    assert prompt["all_positive"] == ["risky"]
    assert {s["benchmark"] for s in numbers["scores"]} == {"mixed", "risky", "replies"}
    assert len(list((tmp_path / "out" / "figures").glob("*.svg"))) >= 5


def test_every_f1_has_the_constants_f1_in_its_table_and_all_positive_columns_say_recall(made):
    report = build(made)
    seen = 0
    for table in report.standings.tables:
        assert any(line.kind == "constant" and set(line.entries) == set(table.columns) for line in table.lines)
        for row in score_rows(report, table.task):
            assert re.fullmatch(r"[\d.]+", row[4])
            assert ("recall only" in row[2]) == row[1].startswith("risky")
            seen += 1
    assert seen == 9


def test_the_numbers_of_the_tables_equal_the_scores_of_the_runs(made):
    report = build(made)
    line = next(ln for ln in report.standings.tables[0].lines if ln.name == "alert")
    stored = {(s.task, s.benchmark): s for s in contestants([open_run(made[0])])[0].scores.values()}
    for benchmark, entry in line.entries.items():
        assert entry.value == pytest.approx(stored[Task.prompt_harm, benchmark].f1)
        assert entry.low <= entry.value <= entry.high
    weights = {"mixed": 60, "risky": 20}
    mean = sum(line.entries[b].value * w for b, w in weights.items()) / 80
    assert line.mean.value == pytest.approx(mean)
    assert line.entries["mixed"].mark == "best"
    constant = next(ln for ln in report.standings.tables[0].lines if ln.name == "constant")
    assert {entry.mark for entry in constant.entries.values()} == {""}  # looks at nothing, so takes no place


def test_everyday_has_a_column_and_a_test_of_its_own_and_enters_no_mean(tmp_path):
    sets = {"AegisSafetyTest": rows(60), "everyday": rows(50, name="e", text=lambda i: f"please steal or bake {i}")}
    for guard in (Echo("alert", "steal"), Echo("other", "cake 1")):
        evaluate(guard, sets, tmp_path / guard.name)
    report = build([tmp_path / "alert", tmp_path / "other"])
    (table,) = report.standings.tables
    assert (table.columns, table.apart) == (("AegisSafetyTest",), ("everyday",))
    for line in table.ours():
        assert line.mean.value == line.shared.value == line.entries["AegisSafetyTest"].value
        assert line.entries["everyday"].value != line.mean.value
    assert [c.benchmarks for c in report.standings.comparisons] == [("AegisSafetyTest",)]
    assert sorted(c.benchmarks[0] for c in report.standings.looks) == ["AegisSafetyTest", "everyday"]
    assert [p.benchmarks for p in report.points] == [("AegisSafetyTest",), ("everyday",)]
    markdown = render_markdown(document(report))
    assert "`--per-hour PRICE`" not in render_html(document(report))
    assert "<code>--per-hour PRICE</code>" in render_html(document(report))
    assert "50 rows, in no mean" in markdown
    assert "mean of 1 of the paper's 6" in markdown


def test_harmless_rows_alone_have_no_column_of_f1_and_are_listed_with_their_false_alarms(tmp_path):
    calm = [e for e in rows(60, name="c") if e.gold.prompt_harm == "unharmful"]
    evaluate(Echo("alert", "bake"), {"AegisSafetyTest": rows(60), "calm": calm}, tmp_path / "alert")
    report = build([tmp_path / "alert"])
    assert report.standings.tables[0].every == ("AegisSafetyTest",)
    assert "| alert | calm | 0.00 |" in render_markdown(document(report))


def test_thirty_planted_attacks_add_no_element_no_attribute_and_no_address(tmp_path):
    attacks = [f"{attack} {'steal' if i % 2 else 'bake'}" for i, attack in enumerate(XSS)]
    harmless = [f"word{i} {'steal' if i % 2 else 'bake'}" for i in range(len(XSS))]
    pages = {}
    for name, texts in (("attack", attacks), ("plain", harmless)):
        evil = name == "attack"
        file = tmp_path / name / "own.jsonl"
        file.parent.mkdir()
        examples = rows(len(texts), text=texts.__getitem__)
        own_file(file, examples)
        folders = []
        for i, guard in enumerate((Echo(XSS[0] if evil else "one", "steal"), Echo(XSS[1] if evil else "two", "e1"))):
            folder = tmp_path / name / f"run{i}"
            evaluate(guard, {"own": examples}, folder, config={"mode": XSS[2] if evil else "full"}, inputs=[file])
            folders.append(folder)
        report = build(folders, title=XSS[7] if evil else "title", errors=100, pairs=100)
        paths = write_report(report, tmp_path / name / "out")
        pages[name] = (report, (tmp_path / name / "out" / "report.html").read_text(), paths)
    bad, good = (parsed(pages[name][1]) for name in ("attack", "plain"))
    assert len(XSS) >= 30
    assert bad.tags["section"] >= 30  # the attacks are on the page
    assert bad.tags["script"] == 0
    assert set(bad.tags) <= set(good.tags) | {"wbr"}
    assert set(bad.attributes) <= set(good.attributes)
    assert not [a for a in bad.attributes if a.startswith("on")]
    for tag, name, value in bad.urls:
        assert value.startswith(
            ("data:image/svg+xml;base64,", "#", "default-src 'none'", "width=device-width", "no-referrer")
        )
        assert (tag, name) in {("img", "src"), ("a", "href"), ("meta", "content")}
    assert "\x1b" not in pages["attack"][1]
    assert "\u202e" not in pages["attack"][1]
    assert "⟦U+202E⟧" in pages["attack"][1]
    markdown = (tmp_path / "attack" / "out" / "report.md").read_text()
    assert "<script" not in markdown
    assert "<img" not in markdown
    for path in pages["attack"][2]:
        if path.suffix == ".svg":
            assert b"<script" not in path.read_bytes()
            assert b"onerror" not in path.read_bytes()


def test_the_policy_allows_this_style_sheet_and_nothing_from_elsewhere(made, tmp_path):
    write_report(build(made), tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    style = re.search(r"<style>(.*?)</style>", html, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html).group(1)
    assert policy.replace("&#39;", "'").split("; ")[0] == "default-src 'none'"
    assert f"style-src &#39;sha256-{digest}&#39;" in policy or f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    assert parsed(html).tags["script"] == 0


@pytest.mark.slow
def test_the_page_opens_in_a_browser_and_no_attack_runs(tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    examples = rows(len(XSS), text=lambda i: f"{XSS[i]} steal")
    file = own_file(tmp_path / "own.jsonl", examples)
    folders = []
    for name in ("one", "two"):
        evaluate(Echo(name, "e1" if name == "two" else "steal"), {"own": examples}, tmp_path / name, inputs=[file])
        folders.append(tmp_path / name)
    write_report(build(folders, title="calm", errors=100, pairs=100), tmp_path / "out")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    page = (tmp_path / "out" / "report.html").as_uri()
    done = subprocess.run(
        [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "<title>calm</title>" in done.stdout
    assert parsed(done.stdout).tags["script"] == 0
    assert done.stdout.count('class="covered"') > 10
    assert "Refused" not in done.stderr


def test_harmful_texts_are_covered_until_asked_for(made, tmp_path):
    write_report(build(made), tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    cards = re.findall(r'<section class="card">.*?</section>', html, re.S)
    assert len(cards) > 10
    for card in cards:
        if "Prompt harm: harmful" in card or ">harmful<" in card:
            assert card.index('class="covered"') < card.index('class="text"')
    ids = re.findall(r'id="(v\d+)"', html)
    assert len(ids) == len(set(ids)) > 5


def test_control_and_direction_characters_are_shown_not_sent():
    assert visible("a\x1b[31mb\u202ec\u200bd\ne\tf") == "a⟦U+001B⟧[31mb⟦U+202E⟧c⟦U+200B⟧d\ne\tf"
    assert visible("x" * 10, limit=4).startswith("xxxx\n[… 6 characters more]")
    assert escaped("a|b\n*c* <d>\x1b") == r"a\|b \*c\* &lt;d&gt;⟦U\+001B⟧"


def test_errors_come_most_confident_first_and_unscored_last(made):
    alert, sleepy, _ = contestants([open_run(folder) for folder in made])
    found = [m for m in mistakes(alert, 100, ()) if m.task is Task.prompt_harm]
    sure = [m.confidence for m in found]
    assert sure == sorted(sure, reverse=True)
    assert all(m.gold != m.said for m in found)
    assert all(m.confidence is None for m in mistakes(sleepy, 10, ()))
    assert len(mistakes(alert, 3, ())) == 3


def test_an_error_is_veiled_where_gold_or_any_guard_sees_harm_in_another_task(tmp_path):
    exchange = Exchange("own:0", "please tell me how to steal a cake", "No.")
    for guard in (Echo("calm", "nothing"), Echo("alert", "steal"), ConstantGuard()):
        evaluate(guard, {"own": [Example(exchange, Labels(refusal="refusal"))]}, tmp_path / guard.name)
    evaluate(Echo("calm", "nothing"), {"own": [Example(exchange, Labels("harmful", "refusal"))]}, tmp_path / "known")
    names = ("calm", "alert", "known", "constant")
    calm, alert, known, constant = contestants([open_run(tmp_path / name) for name in names])
    assert [m.harmful for m in mistakes(calm, 9, harmful_rows([calm, constant]))] == [False]
    assert [m.harmful for m in mistakes(calm, 9, harmful_rows([calm, alert]))] == [True]
    assert {m.task: m.harmful for m in mistakes(known, 9, harmful_rows([known]))} == {
        Task.prompt_harm: True,
        Task.refusal: True,
    }


def test_side_by_side_shows_exchanges_on_which_guards_differ_and_leaves_the_constant_out(made):
    found = side_by_side(contestants([open_run(folder) for folder in made]), 8)
    assert len(found) == 8
    for shown in found:
        assert [label for label, _ in shown.verdicts] == ["alert", "sleepy"]
        said = [v.labels for _, v in shown.verdicts]
        assert any(said[0][t] != said[1][t] for t in shown.gold.tasks)


def test_a_sample_is_compared_on_the_rows_that_both_judged(made, tmp_path):
    evaluate(Echo("other", "bake"), {"mixed": rows(60)}, tmp_path / "other", config={"mode": "full"}, limit=30)
    report = build([made[0], tmp_path / "other"])
    assert [c.rows for c in report.standings.comparisons] == [30]
    assert any("a sample of 30 rows" in note for note in report.notes)
    assert any("not at hand" in note for note in report.notes)
    assert len(report.standings.tables[0].ours()) == 2


def test_rows_that_were_asked_again_and_stand_at_the_end_are_compared_like_the_others(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "again")
    file = tmp_path / "again" / "verdicts" / "mixed.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*rest, first]))
    plain, moved = (build([folder, made[1]]) for folder in (made[0], tmp_path / "again"))
    assert not [n for n in moved.notes if n.startswith("not compared")]
    assert [c.difference for c in moved.standings.comparisons] == [c.difference for c in plain.standings.comparisons]
    assert [c.p for c in moved.standings.looks] == pytest.approx([c.p for c in plain.standings.looks], abs=0.05)


def test_runs_over_other_rows_or_other_labels_are_reported_but_not_compared(made, tmp_path):
    evaluate(Echo("other", "bake"), {"mixed": rows(30, name="else-")}, tmp_path / "other", config={"mode": "full"})
    evaluate(Echo("third", "bake"), {"mixed": rows(60, positive=True)}, tmp_path / "third", config={"mode": "full"})
    report = build([made[0], tmp_path / "other", tmp_path / "third"])
    assert any("have no row of mixed in common" in note for note in report.notes)
    assert any("gold labels of" in note for note in report.notes)
    assert not [c for c in report.standings.comparisons if c.task is Task.prompt_harm]


def test_corrections_are_shown_beside_the_original_labels(made, tmp_path):
    reviews = [
        Review(f"r{i}", "a", Labels(prompt_harm="unharmful"), "", "2026-01-01T00:00:00+00:00") for i in (1, 11, 31)
    ]
    write_jsonl(tmp_path / "c.jsonl", reviews)
    report = build(made[:2], corrections=[tmp_path / "c.jsonl"])
    row = next(r for r in report.relabelled if (r.guard, r.benchmark) == ("alert", "mixed"))
    assert row.changed == 3
    assert row.corrected.value > row.original.value
    mean = next(r for r in report.relabelled if (r.guard, r.benchmark) == ("alert", "weighted mean"))
    before, after = report.standings.tables[0].ours()[0].entries, {"mixed": row.corrected.value}
    assert mean.original.value == pytest.approx((60 * before["mixed"].value + 20 * before["risky"].value) / 80)
    assert mean.corrected.value == pytest.approx((60 * after["mixed"] + 20 * before["risky"].value) / 80)
    write_report(report, tmp_path / "out")
    assert "3 rows were reviewed" in (tmp_path / "out" / "report.html").read_text()


def test_training_stages_give_curves_hours_and_corpus_statistics(made, tmp_path):
    stage = tmp_path / "train" / "sft"
    stage.mkdir(parents=True)
    manifest = {"stage": "sft", "seconds": 7200, "counts": {"in": 10, "out": 9, "dropped": {"long": 1}}}
    (stage / "manifest.json").write_text(json.dumps(manifest))
    write_jsonl(stage / "log.jsonl", [{"step": i, "loss": 5 / (i + 1)} for i in range(30)] + [{"step": 30}])
    traces = tmp_path / "train" / "synthesize"
    traces.mkdir()
    table1 = {"mine": {"samples": 1, "steps": 2, "steps_per_sample": 2.0, "characters_per_step": 5.0}}
    (traces / "manifest.json").write_text(json.dumps({"stage": "synthesize", "counts": {}, "table1": table1}))
    report = build(made[:1], training=[tmp_path / "train"])
    assert [s.hours for s in report.stages] == [2.0, None]
    written = render_markdown(document(report))
    assert "Traces of train (Table 1)" in written.replace("\\", "")
    assert "| mine | 1 | 2 | 2.00 | 5.00 |" in written
    assert "training" in report.figures
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no stage"):
        build(made[:1], training=[tmp_path / "empty"])


def test_a_folder_that_holds_no_run_is_named(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "holds no finished run" in capsys.readouterr().err


def test_exposure_is_known_unknown_or_read_from_the_training_sources(tmp_path):
    assert exposure("guardreasoner-8b")["ToxicChat"] == "train split"
    assert exposure("guardreasoner-8b")["SafeRLHF"] == "same pool"
    assert exposure("constant") == {}
    assert exposure("somebody") is None
    assert exposure("nano", sources_of(NANO_FOLDER))["everyday"] == "same pool"  # its other domains, by the same writer
    assert exposure("nano", ["pku_saferlhf_mini", "alpaca_harmless"]) == {
        "SafeRLHF": "train split",
        "BeaverTails": "same pool",
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"sources": {"toxicchat_train": 5}}))
    assert sources_of(tmp_path) == ["toxicchat_train"]
    assert sources_of(tmp_path / "none") is None
