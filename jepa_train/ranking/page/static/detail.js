// One image, as large as it fits, with all that the table says about it.
"use strict";

class Detail {
  constructor(ranking) {
    Object.assign(this, { ranking, dialog: byId("detail"), rows: [], at: 0 });
    byId("close").addEventListener("click", () => this.dialog.close());
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1 };
      if (event.key in steps) this.step(steps[event.key]);
    });
  }

  /** Show a row, one of ``rows``, among which the arrows move. */
  open(row, rows) {
    this.rows = rows;
    this.at = rows.indexOf(row);
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
  }

  step(by) {
    this.at = Math.min(Math.max(this.at + by, 0), this.rows.length - 1);
    this.draw();
  }

  draw() {
    const row = this.rows[this.at];
    byId("detail-title").textContent = this.ranking.names[row];
    byId("position").textContent = `${counted(this.at + 1)} of ${counted(this.rows.length)}`;
    byId("previous").disabled = this.at === 0;
    byId("next").disabled = this.at === this.rows.length - 1;
    byId("detail-body").replaceChildren(this.picture(row), this.facts(row));
  }

  /** The original where the browser shows it, the thumbnail until then and otherwise. */
  picture(row) {
    const address = this.ranking.address(row);
    const small = thumbnail(this.ranking, row);
    const figure = element("figure", {}, small);
    if (address === null) return figure;
    const link = element("a", { href: address, target: "_blank", rel: "noopener" }, "Open the original");
    const words = element("figcaption", {}, link);
    const image = element("img", { src: address, alt: this.ranking.names[row] });
    image.addEventListener("load", () => {
      image.classList.toggle("tiny", image.naturalWidth < 200);
      small.replaceWith(image);
    });
    image.addEventListener("error", () =>
      words.prepend("The original is not at its place, or of a kind that this browser does not show. "),
    );
    figure.append(words);
    return figure;
  }

  facts(row) {
    const { ranking } = this;
    const list = element("dl");
    const add = (name, meaning, ...content) =>
      list.append(element("div", {}, element("dt", { title: meaning }, spaced(name)), element("dd", {}, ...content)));
    if (ranking.reason(row)) add("reason", "why a value is missing", element("span", { class: "flag" }, ranking.reason(row)));
    if (ranking.classes) add("class", "folder of the image", ranking.className(row) ?? "none");
    for (const [name, { meaning }] of ranking.numbers) {
      const value = ranking.value(name, row);
      const text = element("span", { class: value === null ? "missing" : "" }, valueText(name, value));
      add(name, meaning, text, element("small", {}, meaning));
    }
    if (ranking.nearestName(row) !== null) add("nearest image", "", this.nearest(row));
    return list;
  }

  nearest(row) {
    const other = this.ranking.nearest[row];
    if (other === MISSING) return this.ranking.nearestName(row);
    const button = element("button", { type: "button", class: "nearest", onclick: () => this.open(other, [row, other]) });
    button.append(thumbnail(this.ranking, other), element("span", {}, this.ranking.names[other]));
    return button;
  }
}
