// Four ways to look at the rows that were found. Each is a view of VirtualList: layout, rowCount, rowHeight, row.
"use strict";

const GAP = 8; // pixels between tiles
const CAPTION = 46; // pixels below a tile

/** A row of the grid with its cells. */
function gridRow(kind, ...cells) {
  return element("div", { class: `row ${kind}`, role: "row" }, ...cells);
}

function cell(attributes, ...children) {
  return element("div", { role: "gridcell", ...attributes }, ...children);
}

/** All images, as tiles. */
class Gallery {
  constructor(ranking, rows, score, open) {
    Object.assign(this, { ranking, rows, score, open });
    this.note = rows.length ? "" : "No image matches. Clear the filters to see all.";
  }

  layout(width) {
    this.perRow = Math.max(2, Math.floor((width + GAP) / (104 + GAP)));
    this.size = Math.floor((width - GAP * (this.perRow - 1)) / this.perRow);
    this.gap = (width - this.size * this.perRow) / (this.perRow - 1);
    this.rowHeight = this.size + CAPTION + GAP;
    this.rowCount = Math.ceil(this.rows.length / this.perRow);
  }

  row(index) {
    const rows = this.rows.subarray(index * this.perRow, (index + 1) * this.perRow);
    const cells = [...rows].map((row) =>
      cell({}, tile(this.ranking, row, this.score, () => this.open(row, this.rows), { caption: true })),
    );
    const made = gridRow("gallery", ...cells);
    made.style.setProperty("--size", `${this.size}px`);
    made.style.setProperty("--gap", `${this.gap}px`);
    return made;
  }
}

/** For each class its least typical images on the left, its most typical ones on the right. */
class Extremes {
  constructor(ranking, rows, score, open) {
    Object.assign(this, { ranking, score, open });
    const { typical } = ranking.numbers.get(score);
    this.ends = typical === 0 ? ["smallest", "largest"] : ["least typical", "most typical"];
    this.groups = this.grouped(rows);
    this.note = this.groups.length
      ? `By ${spaced(score)}: first the ${this.ends[0]}, then the ${this.ends[1]}${ranking.classes ? " of each class" : ""}.`
      : `No image with a ${spaced(score)} matches.`;
  }

  /** Rows with a value by class, in the order of the classes' names. */
  grouped(rows) {
    const groups = new Map();
    for (const row of rows) {
      if (this.ranking.value(this.score, row) === null) continue;
      const name = this.ranking.className(row) ?? (this.ranking.classes ? "without a class" : "All images");
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(row);
    }
    const byName = new Intl.Collator("en", { numeric: true });
    return [...groups].sort(([a], [b]) => byName.compare(a, b));
  }

  layout(width) {
    this.narrow = width < 640;
    this.size = 64;
    const room = this.narrow ? width : (width - 150 - 4 * GAP) / 2;
    this.each = Math.max(2, Math.floor((room + GAP / 2) / (this.size + GAP / 2)));
    this.rowHeight = this.narrow ? 2 * this.size + 64 : this.size + 20;
    this.rowCount = this.groups.length;
  }

  row(index) {
    const [name, rows] = this.groups[index];
    const least = rows.slice(0, Math.min(this.each, Math.ceil(rows.length / 2)));
    const most = rows.slice(Math.max(least.length, rows.length - this.each));
    const made = gridRow(
      this.narrow ? "extremes narrow" : "extremes",
      element(
        "div",
        { class: "group", role: "rowheader" },
        element("strong", { title: name }, name),
        element("span", {}, plural(rows.length, "image", "images")),
      ),
      this.side(least, rows, this.ends[0]),
      this.side(most, rows, this.ends[1]),
    );
    made.style.setProperty("--size", `${this.size}px`);
    return made;
  }

  side(shown, rows, end) {
    const tiles = shown.map((row) => tile(this.ranking, row, this.score, () => this.open(row, rows)));
    return cell({ class: end === this.ends[0] ? "side least" : "side most", "aria-label": end }, ...tiles);
  }
}

const ALIKE = 8; // grey levels of 255: a copy that was saved again, brightened a little or made noisy differs by less

/** Images beside their nearest one, the most alike pairs first. */
class Pairs {
  constructor(ranking, mask, score, open) {
    Object.assign(this, { ranking, score, open });
    this.pairs = ranking.pairs.filter((row) => mask[row] || (ranking.nearest[row] !== MISSING && mask[ranking.nearest[row]]));
    this.note = ranking.pairs.length ? this.count() : "This ranking has no nearest images.";
  }

  count() {
    if (this.ranking.comparesThumbnails) {
      const alike = this.pairs.filter((row) => this.ranking.value("nearest_difference", row) < ALIKE).length;
      return `${alike ? plural(alike, "pair differs", "pairs differ") : "No pair differs"} by less than ${ALIKE} of 255 grey levels.`;
    }
    const close = this.pairs.filter((row) => this.share(row) < 0.1).length;
    return (
      `${close ? plural(close, "pair is", "pairs are") : "No pair is"} closer than a tenth of the typical distance, which is ` +
      `${numberText(this.ranking.typicalDistance)} (the median between an image and its nearest one).`
    );
  }

  share(row) {
    return this.ranking.value("nearest_distance", row) / this.ranking.typicalDistance;
  }

  layout(width) {
    this.perRow = Math.max(1, Math.floor((width + GAP) / (340 + GAP)));
    this.rowHeight = 112 + GAP;
    this.rowCount = Math.ceil(this.pairs.length / this.perRow);
  }

  row(index) {
    const pairs = this.pairs.slice(index * this.perRow, (index + 1) * this.perRow);
    const made = gridRow("pairs", ...pairs.map((row) => this.pair(row)));
    made.style.setProperty("--per-row", this.perRow);
    made.style.setProperty("--size", "92px");
    return made;
  }

  pair(row) {
    const other = this.ranking.nearest[row];
    const both = other === MISSING ? [row] : [row, other];
    const tiles = both.map((one) => tile(this.ranking, one, this.score, () => this.open(one, both)));
    if (other === MISSING) tiles.push(element("span", { class: "thumb none" }, "not on this page"));
    return cell(
      { class: "pair" },
      ...tiles,
      element(
        "div",
        { class: "words" },
        element("strong", {}, this.distanceText(row)),
        element("span", { class: "name", title: this.ranking.names[row] }, this.ranking.names[row]),
        element("span", { class: "name", title: this.ranking.nearestName(row) }, this.ranking.nearestName(row)),
        this.classesText(row, other),
      ),
    );
  }

  distanceText(row) {
    const difference = this.ranking.value("nearest_difference", row);
    if (Number.isFinite(difference)) {
      return difference === 0 ? "the same picture" : `${numberText(Number(difference.toPrecision(2)))} of 255 apart`;
    }
    const share = this.share(row);
    if (!Number.isFinite(share)) return `distance ${numberText(this.ranking.value("nearest_distance", row))}`;
    if (share < 1e-4) return "the same to the encoder";
    return `${numberText(Number((100 * share).toPrecision(2)))} % of the typical distance`;
  }

  classesText(row, other) {
    if (other === MISSING || this.ranking.className(row) === this.ranking.className(other)) return null;
    return element("span", { class: "flag" }, "different classes");
  }
}

/** All images with all their numbers. */
class Table {
  constructor(ranking, rows, score, open, sort, setSort) {
    Object.assign(this, { ranking, rows, score, open, sort, setSort });
    this.note = rows.length ? "" : "No image matches. Clear the filters to see all.";
    this.columns = ["filename", ranking.classes && "class", ...ranking.numbers.keys(), ranking.reasons && "reason"];
    this.columns = this.columns.filter(Boolean);
  }

  layout(width) {
    this.rowHeight = 44;
    this.rowCount = this.rows.length;
    const texts = width < 640 ? { filename: 120, class: 90, reason: 240 } : { filename: 220, class: 120, reason: 240 };
    const widths = this.columns.map((name) => texts[name] ?? 104);
    const picture = 52;
    const needed = picture + widths.reduce((sum, column) => sum + column);
    widths[0] += Math.max(0, width - needed); // the names take the room that is left
    this.width = Math.max(width, needed);
    this.template = [picture, ...widths].map((column) => `${column}px`).join(" ");
  }

  /** Set the columns of the head or of a row. */
  inColumns(made) {
    made.style.setProperty("--width", `${this.width}px`);
    made.style.gridTemplateColumns = this.template;
    return made;
  }

  head() {
    const cells = this.columns.map((name) => {
      const sorted = this.sort.column === name;
      const direction = this.sort.descending ? "descending" : "ascending";
      const button = element("button", { type: "button", onclick: () => this.setSort(name) }, spaced(name));
      button.title = this.ranking.numbers.get(name)?.meaning ?? "";
      if (sorted) button.append(element("span", { "aria-hidden": "true" }, this.sort.descending ? " ↓" : " ↑"));
      const classes = this.ranking.numbers.has(name) ? "number" : "";
      return element("div", { role: "columnheader", class: classes, "aria-sort": sorted ? direction : "none" }, button);
    });
    const made = gridRow("table", element("div", { role: "columnheader" }, element("span", { class: "hidden" }, "picture")), ...cells);
    made.setAttribute("aria-rowindex", 1);
    return this.inColumns(made);
  }

  row(index) {
    const row = this.rows[index];
    const open = () => this.open(row, this.rows);
    const picture = cell({ class: "picture" }, tile(this.ranking, row, this.score, open));
    const made = gridRow("table", picture, ...this.columns.map((name) => this.cell(name, row)));
    made.addEventListener("click", (event) => event.target.closest("button") || String(getSelection()) || open());
    made.style.setProperty("--size", "36px");
    return this.inColumns(made);
  }

  cell(name, row) {
    if (name === "filename") return cell({ title: this.ranking.names[row] }, this.ranking.names[row]);
    if (name === "class") return cell({}, this.ranking.className(row) ?? "");
    if (name === "reason") return cell({ title: this.ranking.reason(row) }, this.ranking.reason(row) ?? "");
    const value = this.ranking.value(name, row);
    return cell({ class: value === null ? "number missing" : "number" }, valueText(name, value));
  }
}
