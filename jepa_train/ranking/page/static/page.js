// The page: what is chosen, and what follows from it.
"use strict";

class Page {
  constructor(ranking) {
    this.ranking = ranking;
    this.everything = { text: "", class: MISSING, low: -Infinity, high: Infinity, missing: false };
    const [score] = ranking.scores;
    this.state = { ...this.everything, view: "gallery", score, sort: this.leastFirst(score) };
    this.detail = new Detail(ranking);
    this.open = (row, rows) => this.detail.open(row, rows);
    this.histogram = new Histogram(ranking, {
      select: (low = -Infinity, high = Infinity) => this.change({ low, high, missing: false }),
      open: this.open,
    });
    const [list, scroller, head, controls] = ["list", "scroller", "head", "controls"].map(byId);
    this.list = new VirtualList({ list, scroller, head, controls });
    new ResizeObserver(() => this.measure()).observe(controls);
    this.fillChoices();
    this.listen();
  }

  /** The height of what stays on top, for what stays below it. */
  measure() {
    const fixed = getComputedStyle(byId("controls")).position === "sticky" ? byId("controls").offsetHeight : 0;
    document.documentElement.style.setProperty("--controls", `${fixed}px`);
  }

  leastFirst(score) {
    return { column: score, descending: this.ranking.leastFirstDescends(score) };
  }

  fillChoices() {
    const option = (value, text) => element("option", { value }, text);
    byId("score").replaceChildren(...this.ranking.scores.map((name) => option(name, spaced(name))));
    const { classes } = this.ranking;
    byId("class").hidden = classes === null;
    if (classes === null) return;
    const counts = new Int32Array(classes.texts.length);
    for (const code of classes.codes) if (code !== MISSING) counts[code] += 1;
    const options = classes.texts.map((text, code) => option(code, `${text} (${counted(counts[code])})`));
    byId("class").replaceChildren(option(MISSING, `All ${plural(options.length, "class", "classes")}`), ...options);
  }

  listen() {
    const on = (id, event, changes) => byId(id).addEventListener(event, (happened) => this.change(changes(happened.target)));
    const number = (text, otherwise) => (text.trim() === "" ? otherwise : Number(text));
    on("text", "input", (field) => ({ text: field.value }));
    on("class", "change", (field) => ({ class: Number(field.value) }));
    on("low", "input", (field) => ({ low: number(field.value, -Infinity), missing: false }));
    on("high", "input", (field) => ({ high: number(field.value, Infinity), missing: false }));
    on("missing", "change", (field) => ({ missing: field.checked, low: -Infinity, high: Infinity }));
    on("score", "change", ({ value }) => {
      const { low, high, missing } = this.everything;
      return { score: value, sort: this.leastFirst(value), low, high, missing };
    });
    on("clear", "click", () => this.everything);
    on("order", "click", () => ({ sort: { ...this.state.sort, descending: !this.state.sort.descending } }));
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("save").addEventListener("click", () => this.save());
    const tabs = [...document.querySelectorAll('[role="tab"]')];
    for (const [place, tab] of tabs.entries()) {
      tab.addEventListener("click", () => this.change({ view: tab.dataset.view }));
      tab.addEventListener("keydown", ({ key }) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
        if (step) tabs[(place + step + tabs.length) % tabs.length].focus();
      });
    }
  }

  change(changes) {
    Object.assign(this.state, changes);
    this.draw();
  }

  draw() {
    const { ranking, state } = this;
    const found = ranking.found(state.text, state.class);
    this.mask = ranking.within(found, state.score, state);
    this.rows = ranking.order(state.sort.column, state.sort.descending).filter((row) => this.mask[row]);
    this.histogram.draw(state.score, found, [state.low, state.high]);
    this.drawControls();
    this.drawView();
  }

  drawControls() {
    const { ranking, state } = this;
    byId("score").value = state.score;
    byId("meaning").textContent = ranking.numbers.get(state.score).meaning;
    for (const id of ["text", "class"]) if (byId(id) !== document.activeElement) byId(id).value = state[id];
    for (const id of ["low", "high"]) {
      // a number that is being typed stays as it is
      const text = Number.isFinite(state[id]) ? String(Number(state[id].toPrecision(5))) : "";
      if (byId(id) !== document.activeElement) byId(id).value = text;
    }
    byId("range-name").textContent = spaced(state.score);
    const without = ranking.numbers.get(state.score).values.filter(Number.isNaN).length;
    byId("missing").checked = state.missing;
    byId("missing-label").hidden = without === 0;
    byId("missing-label").lastElementChild.textContent = `without a value (${counted(without)})`;
    byId("clear").disabled = Object.entries(this.everything).every(([name, value]) => state[name] === value);
    byId("order").textContent = `${this.orderText()} ⇅`;
    const images = plural(ranking.size, "image", "images");
    byId("status").textContent = this.rows.length === ranking.size ? `All ${images}` : `${counted(this.rows.length)} of ${images}`;
    for (const tab of document.querySelectorAll('[role="tab"]')) {
      const chosen = tab.dataset.view === state.view;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
  }

  orderText() {
    const { column, descending } = this.state.sort;
    const { typical } = this.ranking.numbers.get(column) ?? {};
    if (typical === undefined) return `${spaced(column)} ${descending ? "Z to A" : "A to Z"}`;
    if (typical === 0) return `${descending ? "Largest" : "Smallest"} ${spaced(column)} first`;
    return `${descending === (typical > 0) ? "Most" : "Least"} typical first`;
  }

  drawView() {
    const { ranking, state, open } = this;
    const setSort = (column) => this.sortBy(column);
    const inOrder = () => {
      const { column, descending } = this.leastFirst(state.score);
      return ranking.order(column, descending).filter((row) => this.mask[row]);
    };
    const view = {
      gallery: () => new Gallery(ranking, this.rows, state.score, open),
      extremes: () => new Extremes(ranking, inOrder(), state.score, open),
      pairs: () => new Pairs(ranking, this.mask, state.score, open),
      table: () => new Table(ranking, this.rows, state.score, open, state.sort, setSort),
    }[state.view]();
    byId("panel").setAttribute("aria-labelledby", `tab-${state.view}`);
    byId("note").textContent = view.note;
    this.list.show(view);
    byId("grid").setAttribute("aria-rowcount", view.rowCount + (view.head ? 1 : 0));
    byId("grid").setAttribute("aria-label", byId(`tab-${state.view}`).textContent);
    byId("grid").className = state.view;
    byId("order").hidden = state.view === "extremes" || state.view === "pairs";
  }

  sortBy(column) {
    const { sort } = this.state;
    const again = sort.column === column;
    this.change({ sort: again ? { column, descending: !sort.descending } : this.leastFirst(column) });
    document.querySelector(`[aria-sort]:not([aria-sort="none"]) button`)?.focus();
  }

  /** Save the names that are listed, in their order, one a line. */
  save() {
    const names = [...this.rows].map((row) => this.ranking.names[row]);
    const address = URL.createObjectURL(new Blob([names.join("\n") + "\n"], { type: "text/plain" }));
    element("a", { href: address, download: "images.txt" }).click();
    URL.revokeObjectURL(address);
  }
}

/** Facts as lists within lists, whatever they are. */
function factsList(facts) {
  const list = element("dl");
  for (const [name, fact] of Object.entries(facts)) {
    list.append(element("div", {}, element("dt", {}, spaced(name)), element("dd", {}, factContent(fact))));
  }
  return list;
}

function factContent(fact) {
  if (fact === null || fact === undefined) return "none";
  if (typeof fact === "number") return numberText(fact);
  if (Array.isArray(fact)) return fact.every(Number.isFinite) ? severalNumbers(fact) : severalParts(fact);
  return typeof fact === "object" ? factsList(fact) : String(fact);
}

function severalNumbers(numbers) {
  const first = numbers.slice(0, 8).map(numberText).join(", ");
  return numbers.length > 8 ? `${first}, … (${counted(numbers.length)} in all)` : first;
}

function severalParts(parts) {
  return element("div", {}, ...parts.map((part) => element("div", {}, factContent(part))));
}

function drawHeader(ranking) {
  const { warnings = [], ...facts } = ranking.summary;
  const title = `${plural(ranking.total, "image", "images")}, ranked by how typical they are`;
  document.title = title;
  byId("title").textContent = title;
  const parts = [];
  if (facts.encoder) parts.push(`Encoder ${facts.encoder.name ?? facts.encoder}`);
  if (ranking.classes) parts.push(plural(ranking.classes.texts.length, "class", "classes"));
  const unread = ranking.reasons ? ranking.reasons.codes.filter((code) => code !== MISSING).length : 0;
  if (unread) parts.push(`${plural(unread, "image has", "images have")} a missing value`);
  byId("subtitle").textContent = parts.join(" · ");
  const shownOnly =
    ranking.size < ranking.total
      ? [`This page shows the ${counted(ranking.size)} least and most typical of them; the table has all.`]
      : [];
  const sentences = [...shownOnly, ...warnings];
  byId("warnings").hidden = sentences.length === 0;
  byId("warnings-title").textContent = plural(sentences.length, "warning", "warnings");
  byId("warnings").querySelector("ul").replaceChildren(...sentences.map((text) => element("li", {}, text)));
  byId("facts").hidden = Object.keys(facts).length === 0;
  byId("facts").querySelector("div").replaceChildren(factsList(facts));
}

function start() {
  const ranking = new Ranking(DATA);
  drawHeader(ranking);
  if (ranking.scores.length === 0) {
    byId("subtitle").textContent = "No image has a value, so there is nothing to rank.";
    return;
  }
  byId("main").hidden = false;
  new Page(ranking).draw();
}

if (typeof DATA !== "undefined") start();
