"use strict";
/* The chat page: sends a question, shows the answer while it is written, and links it to its pages.
   Everything from the server is put in as text, never as HTML; links are made from the list of sources only. */

const page = document.body;
const [turns, form, box, send, stop, clear, welcome, model] =
  ["turns", "ask", "question", "send", "stop", "clear", "welcome", "model"].map((id) => document.getElementById(id));
const MAX_TURNS_KEPT = 10;
let history = [];
let running = null;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function shortDigest(id) {
  return id.replace(/^sha256:/, "").slice(0, 8);
}

function showModel(state, text, digest) {
  model.className = `model ${state}`;
  const label = model.querySelector(".model-text");
  label.replaceChildren(digest ? element("span", "model-word", text) : text);
  if (digest) {
    label.append(" ", element("code", "", shortDigest(digest)));
    model.title = digest;
  }
}

async function findModel() {
  try {
    const answer = await fetch(page.dataset.ready, { headers: { Accept: "application/json" } });
    const ready = await answer.json();
    if (ready.model) showModel("ready", "Model", ready.model);
    else showModel("away", answer.ok ? "No model yet: search only" : "Model is away: search only");
  } catch {
    showModel("away", "Not connected");
  }
}

/* Words with [n] turned into links to the n-th source. */
function showWords(target, words, sources) {
  target.replaceChildren();
  let from = 0;
  for (const match of words.matchAll(/\s?\[(\d{1,2})\]/g)) {
    const source = sources[Number(match[1]) - 1];
    if (!source) continue;
    target.append(words.slice(from, match.index));
    target.append(link(source, "cite", match[1], `Source ${match[1]}: ${source.title}`));
    from = match.index + match[0].length;
  }
  target.append(words.slice(from));
}

function link(source, className, text, label) {
  const made = element("a", className, text);
  if (/^https?:\/\//i.test(source.url)) made.href = source.url;
  made.target = "_blank";
  made.rel = "noopener";
  if (label) made.setAttribute("aria-label", label);
  return made;
}

/* [number, source] pairs: those that the words cite, or all when they cite none. */
function citedFirst(words, sources) {
  const all = sources.map((source, index) => [index + 1, source]);
  const cited = all.filter(([number]) => words.includes(`[${number}]`));
  return cited.length ? cited : all;
}

function sourceList(title, pairs, numbered) {
  const section = element("section", "sources");
  section.append(element("h3", "", title));
  const list = element(numbered ? "ol" : "ul");
  for (const [number, source] of pairs) {
    const item = element("li");
    if (numbered) item.append(element("span", "number", String(number)));
    item.append(link(source, "", source.title));
    list.append(item);
  }
  section.append(list);
  return section;
}

/* Server-sent events out of a fetch body: [name, data] pairs. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      let name = "message";
      let data = "";
      for (const line of text.slice(0, end).split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (data) yield [name, JSON.parse(data)];
    }
  }
}

async function ask(question) {
  welcome.hidden = true;
  clear.hidden = false;
  const turn = element("article", "turn");
  const asked = element("p", "asked", question);
  asked.setAttribute("aria-label", `You asked: ${question}`);
  const reply = element("div", "reply busy");
  const words = element("p", "words");
  reply.append(words);
  turn.append(asked, reply);
  turns.append(turn);
  turn.scrollIntoView({ block: "end" });

  running = new AbortController();
  send.hidden = true;
  stop.hidden = false;
  let answer = "";
  let sources = [];
  let cited = false;
  let done = null;
  const notice = (text, bad) => reply.append(element("p", bad ? "notice bad" : "notice", text));
  try {
    const response = await fetch(page.dataset.api, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
      body: JSON.stringify({ question, history: history.slice(-MAX_TURNS_KEPT) }),
      signal: running.signal,
    });
    if (!response.ok) {
      const problem = await response.json().catch(() => null);
      throw new Error(problem?.error?.message || `The server answered ${response.status}.`);
    }
    for await (const [name, data] of events(response.body)) {
      if (name === "queued") {
        words.textContent = data.position === 1 ? "You are next in line…" : `${data.position - 1} readers are before you…`;
        words.classList.add("state");
      } else if (name === "sources") {
        ({ sources, cited } = data);
      } else if (name === "delta") {
        answer += data.text;
        words.classList.remove("state");
        showWords(words, answer, cited ? sources : []);
        keepInView(reply);
      } else if (name === "done") {
        done = data;
      } else if (name === "error") {
        throw new Error(data.message);
      }
    }
    if (!done) throw new Error("The answer broke off. Please ask again.");
  } catch (error) {
    if (error.name === "AbortError") done = { stopped: true };
    else notice(error instanceof TypeError ? "The server cannot be reached. Please try again." : error.message, true);
  }
  finish(reply, words, { question, answer, sources, cited, done });
}

function finish(reply, words, { question, answer, sources, cited, done }) {
  reply.classList.remove("busy");
  words.classList.remove("state");
  if (!answer) words.remove();
  if (done) {
    if (done.degraded) {
      const text = answer ? "The model went away before it was finished." : "The model is not available at the moment. These pages may have the answer:";
      reply.prepend(element("p", "notice", text));
    }
    if (done.stopped && !answer) reply.prepend(element("p", "state", "Stopped."));
    if (sources.length) {
      const near = !cited || done.refused;
      const shown = citedFirst(near ? "" : answer, sources);
      const title = near ? "The closest pages" : shown.length > 1 ? "Sources" : "Source";
      reply.append(sourceList(title, shown, !near));
    }
    const facts = [];
    if (done.stopped && answer) facts.push("stopped by you");
    if (done.finish_reason === "length") facts.push("cut off at the length limit");
    if (done.model) facts.push(`model ${shortDigest(done.model)}`);
    if (done.seconds >= 0.05 && done.model) facts.push(`${done.seconds.toFixed(1)} s`);
    if (facts.length) reply.append(element("p", "foot", facts.join(" · ")));
    if (done.model) showModel("ready", "Model", done.model);
    if (answer && !done.refused) history.push({ question, answer });
  }
  running = null;
  stop.hidden = true;
  send.hidden = false;
  keepInView(reply);
  if (matchMedia("(pointer: fine)").matches) box.focus();
}

function keepInView(reply) {
  const below = reply.getBoundingClientRect().bottom - (form.getBoundingClientRect().top - 8);
  const reading = window.innerHeight + window.scrollY < document.documentElement.scrollHeight - 240;
  if (below > 0 && !reading) window.scrollBy(0, below);
}

function fit() {
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, 144)}px`;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = box.value.trim();
  if (!question || running) return;
  box.value = "";
  fit();
  ask(question);
});
box.addEventListener("input", fit);
box.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
stop.addEventListener("click", () => running?.abort());
clear.addEventListener("click", () => {
  running?.abort();
  history = [];
  turns.replaceChildren();
  welcome.hidden = false;
  clear.hidden = true;
  box.focus();
});
for (const example of document.querySelectorAll(".example")) {
  example.addEventListener("click", () => running || ask(example.textContent));
}
findModel();
