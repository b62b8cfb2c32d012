"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const AUTHORS = ["draft", "target"];
  const find = (id) => document.getElementById(id);
  const [left, right, filter] = ["left", "right", "filter"].map(find);
  let current = null;

  // A solution is an array, in the order that browse.py writes.
  const solved = (problem, entry) => {
    const values = problem.solutions.find((solution) => solution[0] === entry);
    if (!values) return null;
    const [, isRight, answer, finish, ms, tokens, escalated, wasted, steps] = values;
    return { isRight, answer: data.texts[answer], finish: data.texts[finish], ms, tokens, escalated, wasted, steps };
  };

  const make = (tag, options = {}, ...children) => {
    const { text, ...attributes } = options;
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  const verdict = (solution) => {
    if (!solution) return make("span", { text: "not solved" });
    if (solution.isRight === null) return make("span", { text: "ungraded" });
    return make("span", {
      class: solution.isRight ? "right" : "wrong",
      text: solution.isRight ? "✓ right" : "✗ wrong",
    });
  };

  const trimmed = (text) => text.replace(/\s+$/, "") || "(empty)";

  const candidateNotes = (candidate) =>
    `${candidate[2]} tokens${candidate[5] ? `, ${candidate[5]} of them by the draft` : ""} · ${candidate[3]} ms`;

  // The beginning of a repaired step is the draft's.
  const written = (candidate) => {
    const text = trimmed(data.texts[candidate[1]]);
    if (!candidate[6]) return make("span", { class: "text", text });
    return make(
      "span",
      { class: "text" },
      make("span", { class: "taken", text: text.slice(0, candidate[6]) }),
      text.slice(candidate[6]),
    );
  };

  const scoreNotes = (scores) =>
    scores.map(([scorer, author, value]) => `${data.scorers[scorer]} of ${AUTHORS[author]} ${value.toFixed(3)}`).join(" · ");

  const other = (candidate) =>
    make(
      "div",
      {},
      candidate[4]
        ? make("span", { class: "unused", text: `not used: ${trimmed(data.texts[candidate[1]])}` })
        : make("del", { text: trimmed(data.texts[candidate[1]]) }),
      make("span", {
        class: "tiny",
        text: `${AUTHORS[candidate[0]]}, ${candidate[4] ? "generated only to measure" : "rejected"} · ${candidateNotes(candidate)}`,
      }),
    );

  const stepItem = ([kept, candidates, scores, isWasted]) => {
    const chosen = candidates[kept];
    const rest = candidates.filter((_, index) => index !== kept);
    const who = AUTHORS[chosen[0]];
    const authors = chosen[5] ? "draft, then target" : who;
    const text = make(
      "div",
      {},
      written(chosen),
      make("span", { class: "tiny", text: `kept · ${candidateNotes(chosen)}` }),
    );
    return make(
      "li",
      { class: `step ${who}` },
      make("span", { class: "who", text: authors }),
      make("div", { class: rest.length ? "pair two" : "pair" }, text, ...rest.map(other)),
      make(
        "span",
        { class: "tiny" },
        scoreNotes(scores),
        isWasted ? make("span", { class: "nogain", text: " · no gain over the draft" }) : null,
      ),
    );
  };

  const side = (problem, entry) => {
    const solution = solved(problem, entry);
    const heading = make("h3", { text: data.entries[entry] });
    if (!solution) return make("article", { class: "side" }, heading, make("p", { text: "not solved" }));
    const notes =
      ` · answer ${solution.answer || "none"} · ${solution.ms} ms · ${solution.tokens} tokens · ` +
      `${solution.escalated} of ${solution.steps.length} steps by the target · ${solution.finish}`;
    return make(
      "article",
      { class: "side" },
      heading,
      make("p", {}, verdict(solution), notes),
      make("ol", { class: "steps" }, ...solution.steps.map(stepItem)),
    );
  };

  const showProblem = () => {
    const detail = find("detail");
    if (!current) {
      detail.replaceChildren(make("p", { text: "No problem matches this filter." }));
      return;
    }
    const about = [current.id, current.level ? `level ${current.level}` : null, `gold answer ${current.gold ?? "unknown"}`];
    detail.replaceChildren(
      make("p", { class: "question", text: current.question }),
      make("p", { class: "quiet", text: about.filter(Boolean).join(" · ") }),
      make("div", { class: "sides" }, side(current, Number(left.value)), side(current, Number(right.value))),
    );
  };

  const chosenProblems = () => {
    const all = data.problems.map((problem) => ({
      problem,
      own: solved(problem, Number(left.value)),
      their: solved(problem, Number(right.value)),
    }));
    const kept = {
      all: () => all,
      wrong: () => all.filter(({ own }) => own && own.isRight === false),
      differ: () => all.filter(({ own, their }) => own && their && own.isRight !== their.isRight),
      escalated: () => all.filter(({ own }) => own).sort((a, b) => b.own.escalated - a.own.escalated),
      wasted: () => all.filter(({ own }) => own && own.wasted > 0).sort((a, b) => b.own.wasted - a.own.wasted),
    };
    return kept[filter.value]();
  };

  const mark = (solution) => (!solution || solution.isRight === null ? "–" : solution.isRight ? "✓" : "✗");

  const showList = () => {
    const chosen = chosenProblems();
    if (!chosen.some(({ problem }) => problem === current)) current = chosen.length ? chosen[0].problem : null;
    find("count").textContent = `${chosen.length} of ${data.problems.length} problems; ✓ right, ✗ wrong, first left, then right`;
    find("problems").replaceChildren(
      ...chosen.map(({ problem, own, their }) => {
        const extra = own ? `${own.escalated} escalated${own.wasted ? `, ${own.wasted} wasted` : ""}` : "";
        const button = make(
          "button",
          { type: "button", "aria-current": String(problem === current) },
          `${mark(own)}${mark(their)} ${problem.id}`,
          make("span", { class: "tiny", text: extra }),
        );
        button.addEventListener("click", () => {
          current = problem;
          showList();
          find("problems").querySelector('[aria-current="true"]').focus();
        });
        return make("li", {}, button);
      }),
    );
    showProblem();
  };

  const fill = (select, chosen) => {
    data.entries.forEach((label, index) => select.append(make("option", { value: index, text: label })));
    select.value = String(Math.max(0, data.entries.indexOf(chosen)));
  };
  fill(left, data.left);
  fill(right, data.right);
  for (const select of [left, right, filter]) select.addEventListener("change", showList);
  showList();
})();
