"use strict";
// One row at a time. Everything judged is put on the page as text, never as markup.

const at = (id) => document.getElementById(id);
let state = null;
let active = 0;
let waiting = false;
const trail = [];

function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

async function ask(path, body) {
  const options = body ? { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) } : {};
  const answer = await fetch(path, options);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error || "the server did not answer");
  return content;
}

async function load(path, body) {
  if (waiting) return;
  waiting = true;
  try {
    state = await ask(path, body);
    at("message").textContent = body ? "Saved." : "";
    show();
  } catch (error) {
    at("message").textContent = "Not saved: " + error.message;
  } finally {
    waiting = false;
  }
}

function show() {
  const item = state.item;
  at("progress").textContent = state.reviewer + ": " + state.done + " of " + state.total;
  at("row").hidden = item === null;
  if (item === null) {
    at("message").textContent = "All rows are answered. Thank you.";
    return;
  }
  at("identity").textContent = item.id;
  at("prompt").textContent = item.prompt;
  at("reply").hidden = item.response === null;
  at("response").textContent = item.response || "";
  at("note").value = item.note;
  at("next").hidden = item.given === null;
  at("back").hidden = before() === undefined;
  at("submit").textContent = item.given === null ? "Answer" : "Change my answer";
  questions(item);
  reveal(item);
  activate(0);
}

function questions(item) {
  const all = item.tasks.map((task) => {
    const row = state.tasks[task];
    const box = make("fieldset");
    box.append(make("legend", row.question));
    const choices = [[row.positive, "1"], [row.negative, "2"], ["unsure", "3"]];
    for (const [value, key] of choices) {
      const label = make("label");
      const input = make("input");
      input.type = "radio";
      input.name = task;
      input.value = value;
      const given = item.given === null ? undefined : item.given[task] || "unsure";
      input.checked = given === value;
      label.append(input, " " + value + " ", make("kbd", key));
      box.append(label);
    }
    return box;
  });
  at("questions").replaceChildren(...all);
}

function reveal(item) {
  at("revealed").hidden = item.revealed === null;
  const all = [];
  for (const part of item.revealed || []) {
    all.push(make("p", state.tasks[part.task].question + " Gold: " + part.gold));
    for (const verdict of part.verdicts) {
      const box = make("div", null, "verdict " + (verdict.label === part.gold ? "same" : "other"));
      const score = typeof verdict.score === "number" ? ", P " + verdict.score.toFixed(3) : "";
      box.append(make("b", verdict.guard), ": " + (verdict.label || "no verdict") + score);
      if (verdict.reasoning) box.append(make("div", verdict.reasoning, "text"));
      all.push(box);
    }
  }
  at("verdicts").replaceChildren(...all);
}

function activate(index) {
  const boxes = [...document.querySelectorAll("fieldset")];
  active = Math.max(0, Math.min(index, boxes.length - 1));
  boxes.forEach((box, i) => box.classList.toggle("active", i === active));
}

function choose(number) {
  const box = document.querySelectorAll("fieldset")[active];
  const input = box && box.querySelectorAll("input")[number - 1];
  if (!input) return;
  input.checked = true;
  activate(active + 1);
}

function submit() {
  const item = state && state.item;
  if (!item || waiting) return; // a second click before the first is answered
  const labels = {};
  for (const task of item.tasks) {
    const picked = document.querySelector('input[name="' + task + '"]:checked');
    if (!picked) {
      at("message").textContent = "Answer every question, if only with unsure.";
      return;
    }
    labels[task] = picked.value === "unsure" ? null : picked.value;
  }
  if (item.given !== null && !changed(item)) {
    at("message").textContent = "This is your answer already.";
    return;
  }
  if (item.given === null) trail.push(item.id);
  load("/api/answer", { id: item.id, labels: labels, note: at("note").value });
}

const following = () => load("/api/next");

function before() {
  const here = state && state.item ? trail.indexOf(state.item.id) : -1;
  return here > 0 ? trail[here - 1] : here < 0 ? trail[trail.length - 1] : undefined;
}

function back() {
  const target = before();
  if (target !== undefined) load("/api/item?id=" + encodeURIComponent(target));
}

at("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
at("next").addEventListener("click", following);
at("back").addEventListener("click", back);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const writing = document.activeElement === at("note");
  if (event.key === "Escape") { at("note").blur(); return; }
  if (event.key === "Enter") {
    event.preventDefault();
    at("note").blur();
    const item = state && state.item;
    if (item && item.given !== null && !changed(item)) following(); else submit();
    return;
  }
  if (writing) return;
  const key = event.key.toLowerCase();
  if (["1", "2", "3"].includes(key)) { event.preventDefault(); choose(Number(key)); }
  if (key === "n") { event.preventDefault(); at("note").focus(); }
  if (key === "b") back();
});

function changed(item) {
  return at("note").value !== item.note || item.tasks.some((task) => {
    const picked = document.querySelector('input[name="' + task + '"]:checked');
    return picked && picked.value !== (item.given[task] || "unsure");
  });
}

following();
