// A chat with the pair: which model writes each step, as it is written. Texts are set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const EXAMPLES = [
  "Compared to Leo Mia owns 3 times as many stamps. Leo has 14 stamps. How many stamps does Mia have?",
  "Solve for x: 3x+4=25.",
];
const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`);
const shown = (value) => (Math.abs(value) < 0.01 && value !== 0 ? value.toExponential(1) : value.toFixed(2));
const state = { pair: "", methods: [], messages: [], stops: null, isLost: false };

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

function complain(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

// The error of an answer as one line; asks for a key where one is missing.
async function refusal(response) {
  if (response.status === 401) $("key-line").hidden = false;
  const body = await response.json().catch(() => null);
  return body?.error?.message ?? `the server answered ${response.status}`;
}

class Answer {
  // One answer in the making: a column with a clock.
  constructor(title) {
    this.root = element("article", "answer");
    const head = this.root.appendChild(element("h3"));
    head.append(element("span", "", title));
    this.clock = head.appendChild(element("span", "clock", "0.0 s"));
    this.started = performance.now();
    this.timer = setInterval(() => this.tick(), 100);
    this.step = null;
    this.content = "";
    this.numSteps = 0;
  }

  tick() {
    this.clock.textContent = `${((performance.now() - this.started) / 1000).toFixed(1)} s`;
  }

  add(delta, author) {
    const thinking = delta.reasoning_content ?? "";
    const text = delta.content ?? "";
    if (!thinking && !text) return;
    this.content += text;
    if (!this.step || this.step.dataset.author !== author || this.step.isThinking !== Boolean(thinking)) {
      this.step = this.begin(author, Boolean(thinking));
    }
    this.step.lastChild.textContent += thinking || text;
  }

  begin(author, isThinking) {
    const step = element("div", `step ${author}${isThinking ? " thinking" : ""}`);
    step.dataset.author = author;
    step.isThinking = isThinking;
    step.tabIndex = 0;
    const line = step.appendChild(element("span", "author", author));
    line.append(" ", element("span", "meta"));
    step.append(element("span", "text"));
    this.root.append(step);
    return step;
  }

  decide(record) {
    // Where stop strings hold a part back, the step has no text of its own yet.
    const step = this.step ?? this.begin(record.author, false);
    const several = new Set(record.scores.map((one) => one.scorer)).size < record.scores.length;
    const named = (one) => (several ? `${one.scorer} (${one.author})` : one.scorer);
    const scores = record.scores.map((one) => `${named(one)} ${shown(one.value)}`);
    if (!scores.length && typeof record.score === "number") scores.push(`score ${shown(record.score)}`);
    const limit = record.threshold === null ? "" : ` (threshold ${shown(record.threshold)})`;
    const parts = [scores.length ? scores.join(", ") + limit : "", `${record.ms.toFixed(0)} ms`];
    step.querySelector(".meta").textContent = parts.filter(Boolean).join(" · ");
    step.lastChild.textContent = step.lastChild.textContent.trimEnd();
    for (const one of record.candidates.filter((candidate) => !candidate.kept)) {
      const rejected = element("div", "rejected");
      const author = element("span", "author", `${one.author}, rejected · ${one.tokens} tokens · ${one.ms.toFixed(0)} ms`);
      rejected.append(author, element("s", "text", one.text.trimEnd()));
      step.before(rejected);
    }
    this.numSteps += 1;
    this.step = null;
  }

  end(record) {
    const { draft, target } = record.steps;
    const seconds = Object.entries(record.seconds).map(([name, value]) => `${name} ${value.toFixed(2)} s`);
    const line = `steps: ${draft} draft, ${target} target · ${percent(record.target_share)} of tokens by the target`;
    this.close(`${line} · ${seconds.join(", ")} · ${record.finish.replaceAll("_", " ")}`);
  }

  close(line, className = "outcome") {
    clearInterval(this.timer);
    this.tick();
    if (line) this.root.append(element("p", className, line));
  }
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const parts = buffer.split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function answer(view, model, extension, signal) {
  try {
    const body = { model, messages: state.messages, stream: true, arbitrage: { ...extension, events: true } };
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
    if (!response.ok) throw new Error(await refusal(response));
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const [choice] = event.choices ?? [];
      if (!choice) continue;
      view.add(choice.delta, event.arbitrage?.author ?? "target");
      if (event.arbitrage?.step) view.decide(event.arbitrage.step);
      if (choice.finish_reason) view.end(event.arbitrage);
      follow();
    }
    return true;
  } catch (error) {
    view.close(signal.aborted ? "stopped" : error.message, signal.aborted ? "outcome" : "outcome failed");
    return false;
  }
}

// Scroll with the text, unless the reader has scrolled away.
function follow() {
  const talk = $("talk");
  if (talk.scrollHeight - talk.scrollTop - talk.clientHeight < 160) talk.scrollTop = talk.scrollHeight;
}

function chosen() {
  return state.methods.find((method) => method.name === $("method").value);
}

async function send(question) {
  complain("");
  $("welcome").hidden = true;
  state.messages.push({ role: "user", content: question });
  $("talk").append(element("p", "question", question));
  const columns = $("talk").appendChild(element("div", "answers"));
  const method = chosen();
  const threshold = method.threshold === null ? null : Number($("threshold").value);
  const main = new Answer(threshold === null ? method.name : `${method.name} at ${shown(threshold)}`);
  columns.append(main.root);
  state.stops = new AbortController();
  const work = [answer(main, method.id, threshold === null ? {} : { threshold }, state.stops.signal)];
  if ($("compare").checked && method.name !== "target") {
    const alone = new Answer("target alone");
    columns.append(alone.root);
    work.push(answer(alone, `${state.pair}/target`, {}, state.stops.signal));
  }
  $("talk").scrollTop = $("talk").scrollHeight;
  setBusy(true);
  await Promise.all(work);
  setBusy(false);
  if (main.content) state.messages.push({ role: "assistant", content: main.content });
  else state.messages.pop();
}

function setBusy(isBusy) {
  $("send").disabled = isBusy;
  $("clear").disabled = isBusy;
  $("stop").hidden = !isBusy;
}

function showThreshold() {
  const method = chosen();
  const has = Boolean(method) && method.threshold !== null;
  $("threshold-label").hidden = !has;
  if (has) $("threshold").value = method.threshold;
  $("threshold-value").textContent = has ? shown(Number($("threshold").value)) : "";
}

function showMethods(status) {
  state.pair = status.pair;
  state.methods = status.methods;
  $("pair").textContent = status.pair;
  document.title = `Arbitrage · ${status.pair}`;
  const options = status.methods.map((method) => {
    const option = element("option", "", method.name);
    option.selected = status.default_method === method.name || status.default_method.startsWith(`${method.name}@`);
    return option;
  });
  $("method").replaceChildren(...options);
  showThreshold();
}

function showRequests(running) {
  const rows = running.map((one) => {
    const row = element("tr");
    const strip = element("td", "strip");
    strip.append(...one.steps.map((author) => element("i", author)));
    const by = (author) => one.steps.filter((name) => name === author).length;
    strip.append(` ${by("draft")} draft, ${by("target")} target`);
    row.append(element("td", "", one.model), element("td", "", one.method), strip);
    row.append(element("td", "", String(one.tokens)), element("td", "", one.seconds.toFixed(1)));
    return row;
  });
  const none = element("tr");
  none.append(Object.assign(element("td", "", "none"), { colSpan: 5 }));
  $("requests").replaceChildren(...(rows.length ? rows : [none]));
}

async function refresh() {
  const response = await fetch("status", { headers: headers() });
  if (!response.ok) throw new Error(await refusal(response));
  const status = await response.json();
  $("running").textContent = status.num_running;
  $("waiting").textContent = status.num_waiting;
  $("acceptance").textContent = percent(status.acceptance);
  $("share").textContent = percent(status.target_share);
  $("speed").textContent = status.tokens_per_s.toFixed(0);
  showRequests(status.running);
  if (status.pair && !state.pair) showMethods(status);
  if (state.isLost) complain("");
  state.isLost = false;
}

async function watch() {
  for (;;) {
    if (!document.hidden) {
      await refresh().catch((error) => {
        state.isLost = true;
        complain(error instanceof TypeError ? "the server does not answer" : error.message);
      });
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || $("send").disabled || !chosen()) return;
  $("question").value = "";
  send(question);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
$("method").addEventListener("change", showThreshold);
$("threshold").addEventListener("input", () => {
  $("threshold-value").textContent = shown(Number($("threshold").value));
});
for (const [id, name] of [["rejected", "shows-rejected"], ["details", "shows-details"]]) {
  const apply = () => $("talk").classList.toggle(name, $(id).checked);
  $(id).addEventListener("change", apply);
  apply();
}
$("stop").addEventListener("click", () => state.stops?.abort());
$("clear").addEventListener("click", () => {
  state.messages = [];
  $("talk").replaceChildren($("welcome"));
  $("welcome").hidden = false;
  $("question").focus();
});
$("examples").append(
  ...EXAMPLES.map((text) => {
    const button = element("button", "", text);
    button.type = "button";
    button.addEventListener("click", () => {
      $("question").value = text;
      $("question").focus();
    });
    return button;
  }),
);
watch();
