"use strict";
// Everything that a user or a model wrote is shown by textContent only; nothing is stored.

const TASKS = [
  ["prompt_harm", "request", "harmful"],
  ["refusal", "refusal", "refusal"],
  ["response_harm", "reply", "harmful"],
];
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
const $ = (id) => document.getElementById(id);
let running = null;

// Characters that hide or reorder text are shown by their number.
function visible(text) {
  return text.replace(HIDDEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function headers() {
  const found = { "content-type": "application/json" };
  if ($("key").value) found.authorization = `Bearer ${$("key").value}`;
  return found;
}

async function showState() {
  try {
    const answer = await fetch("/readyz");
    const body = await answer.json();
    $("state").textContent = `${body.guard}: ${body.status}`;
    if (body.status === "loading") setTimeout(showState, 1000);
  } catch {
    $("state").textContent = "the server does not answer";
    setTimeout(showState, 3000);
  }
}

function makeCard(mode) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  card.querySelector(".mode").textContent = mode;
  card.querySelector(".verdict").textContent = "waiting …";
  card.dataset.mode = mode;
  card.classList.add("waiting");
  $("results").append(card);
  return card;
}

function addStep(card, step) {
  const item = document.createElement("li");
  const task = document.createElement("span");
  task.className = "task";
  task.textContent = (TASKS.find(([name]) => name === step.task) || [])[1] || "";
  item.append(task, document.createTextNode(visible(step.text)));
  card.querySelector(".steps").append(item);
}

function addRow(card, verdict, [name, title, positive]) {
  const label = verdict.labels[name];
  const score = verdict.scores[name];
  if (label === null && score === null) return;
  const row = card.querySelector("tbody").insertRow();
  row.insertCell().textContent = title;
  const word = row.insertCell();
  word.textContent = label ?? "–";
  if (name !== "refusal") word.className = label === positive ? "harm" : "fine";
  row.insertCell().textContent = score === null ? "–" : score.toFixed(3);
  const bar = row.insertCell();
  if (score === null) return;
  const meter = document.createElement("meter");
  meter.max = 1;
  meter.value = score;
  meter.setAttribute("aria-label", `P(${positive}), ${title}`);
  bar.append(meter);
}

function notesOf(verdict) {
  const notes = [];
  if (verdict.error) notes.push(verdict.error);
  if (verdict.fail_mode) notes.push(`fail mode ${verdict.fail_mode} decided`);
  if (verdict.harm) notes.push(`kind of harm: ${verdict.harm}`);
  if (!verdict.calibrated && verdict.status === "ok") notes.push("scores are not calibrated");
  for (const [name, value] of Object.entries(verdict.notes)) {
    if (!["action", "flagged"].includes(name)) notes.push(`${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  }
  return notes;
}

function showVerdict(card, verdict, milliseconds) {
  card.classList.remove("waiting");
  const title = card.querySelector(".verdict");
  const judged = verdict.status === "ok";
  title.textContent = judged ? (verdict.flagged ? "flagged" : "passed") : verdict.status;
  title.className = `verdict ${!judged ? "doubt" : verdict.flagged ? "harm" : "fine"}`;
  for (const task of TASKS) addRow(card, verdict, task);
  const usage = verdict.usage;
  const parts = [
    `${milliseconds.toFixed(0)} ms`,
    `${usage.prompt_tokens} + ${usage.completion_tokens} tokens`,
    `${usage.passes} ${usage.passes === 1 ? "pass" : "passes"}`,
    `decided in ${verdict.mode}`,
  ];
  card.querySelector(".cost").textContent = parts.join(" · ");
  const notes = notesOf(verdict);
  const note = card.querySelector(".note");
  note.hidden = notes.length === 0;
  note.textContent = visible(notes.join("; "));
  if (verdict.text) {
    card.querySelector("details").hidden = false;
    card.querySelector("pre").textContent = visible(verdict.text);
  }
}

function showError(card, message) {
  card.classList.remove("waiting");
  card.querySelector(".verdict").textContent = "not judged";
  card.querySelector(".verdict").className = "verdict doubt";
  card.querySelector(".note").hidden = false;
  card.querySelector(".note").textContent = message;
}

async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const [kind, data] = text.slice(0, end).split("\n", 2);
      text = text.slice(end + 2);
      yield [kind.slice("event: ".length), JSON.parse(data.slice("data: ".length))];
    }
  }
}

async function judge(mode, exchange, signal) {
  const card = makeCard(mode);
  const start = performance.now();
  const body = JSON.stringify({ ...exchange, mode, stream: true });
  try {
    const answer = await fetch("/v1/judge", { method: "POST", headers: headers(), body, signal });
    if (!answer.ok) {
      const problem = (await answer.json()).error;
      if (answer.status === 401) $("keyline").hidden = false;
      return showError(card, problem.message);
    }
    card.querySelector(".verdict").textContent = "reasoning …";
    for await (const [kind, value] of eventsOf(answer)) {
      if (kind === "step") addStep(card, value);
      else if (kind === "verdict") showVerdict(card, value, performance.now() - start);
      else showError(card, value.error.message);
    }
  } catch (error) {
    showError(card, error.name === "AbortError" ? "stopped" : "the connection broke");
  }
}

async function judgeAll() {
  running?.abort();
  const own = (running = new AbortController());
  $("results").replaceChildren();
  const exchange = { prompt: $("prompt").value };
  if ($("response").value) exchange.response = $("response").value;
  $("stop").disabled = false;
  for (const box of $("modes").querySelectorAll("input:checked")) {
    if (own.signal.aborted) break; // one after the other, so that each is timed by itself
    await judge(box.value, exchange, own.signal);
  }
  if (running === own) $("stop").disabled = true;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  judgeAll();
});
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    judgeAll();
  } else if (event.key === "Escape") running?.abort();
});
showState();
