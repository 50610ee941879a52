// The distribution of a score: bars that show their images under the pointer, and select a range.
"use strict";

/** Equal bins of a column. Values far outside the quartiles are counted in the outermost bins. */
class Bins {
  constructor(ranking, column, count) {
    this.values = ranking.numbers.get(column).values;
    const present = ranking.order(column, false).filter((row) => ranking.value(column, row) !== null);
    const at = (share) => this.values[present[Math.round(share * (present.length - 1))]];
    const reach = 4 * (at(0.75) - at(0.25)) || Infinity;
    this.low = Math.max(at(0), at(0.25) - reach, -Number.MAX_VALUE / 4);
    this.high = Math.min(at(1), at(0.75) + reach, Number.MAX_VALUE / 4);
    this.openBelow = at(0) < this.low;
    this.openAbove = at(1) > this.high;
    this.count = this.high > this.low ? count : 1;
    this.width = (this.high - this.low) / this.count;
    this.rows = Array.from({ length: this.count }, () => []);
    for (const row of present) this.rows[this.of(this.values[row])].push(row);
  }

  of(value) {
    const bin = this.width > 0 ? Math.floor((value - this.low) / this.width) : 0;
    return Math.min(Math.max(bin, 0), this.count - 1);
  }

  /** Smallest and largest value in bins first..last, which may all be empty: then their edges. */
  span(first, last) {
    const rows = this.rows.slice(first, last + 1).flat();
    if (rows.length === 0) return [this.low + first * this.width, this.low + (last + 1) * this.width];
    return [this.values[rows[0]], this.values[rows[rows.length - 1]]];
  }
}

/** Round numbers between two others, about four of them. */
function ticksBetween(low, high) {
  const rough = (high - low) / 4;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let number = Math.ceil(low / step); number * step <= high; number++) ticks.push(number * step);
  return ticks;
}

class Histogram {
  /** @param select called with (low, high), or without anything for the whole range; open with (row, rows). */
  constructor(ranking, { select, open }) {
    Object.assign(this, { ranking, select, open, bars: byId("bars"), preview: byId("preview"), pressed: null, at: 0 });
    this.bars.addEventListener("pointerdown", (event) => this.press(event));
    this.bars.addEventListener("pointermove", (event) => this.point(event));
    this.bars.addEventListener("pointerup", (event) => this.release(event));
    this.bars.addEventListener("pointercancel", () => (this.pressed = null));
    this.bars.addEventListener("keydown", (event) => this.key(event));
    this.bars.addEventListener("focusin", () => this.show(this.at));
  }

  /** Draw the bars; those rows count in the foreground that the mask has. */
  draw(column, mask, [low, high]) {
    this.range = [low, high];
    if (this.column !== column) {
      this.column = column;
      this.bins = new Bins(this.ranking, column, innerWidth < 600 ? 32 : 64);
      this.at = 0;
      this.shown = undefined;
      this.drawAxis();
    }
    this.mask = mask;
    const limited = low !== -Infinity || high !== Infinity;
    const highest = Math.max(...this.bins.rows.map((rows) => rows.length), 1);
    this.bars.setAttribute("aria-label", `Images by ${spaced(column)}; Enter selects a bar, Shift and arrows more`);
    this.bars.replaceChildren(
      ...this.bins.rows.map((rows, bin) => {
        const found = rows.filter((row) => mask[row]).length;
        const inside = limited && rows.some((row) => this.bins.values[row] >= low && this.bins.values[row] <= high);
        return element(
          "div",
          {
            class: limited && !inside ? "bar outside" : "bar",
            role: "option",
            "aria-selected": String(inside),
            "aria-label": this.label(bin),
            tabindex: bin === this.at ? "0" : "-1",
            style: `--all: ${rows.length / highest}; --found: ${found / highest}`,
          },
          element("span", { class: rows.length ? "all" : "all empty" }),
          element("span", { class: found ? "found" : "found empty" }),
        );
      }),
    );
    if (this.shown === undefined) this.showAll();
    else this.show(this.shown);
  }

  drawAxis() {
    const { low, high } = this.bins;
    byId("axis").replaceChildren(
      ...ticksBetween(low, high).map((tick) =>
        element("span", { style: `left: ${high > low ? (100 * (tick - low)) / (high - low) : 50}%` }, numberText(tick)),
      ),
    );
  }

  label(bin) {
    const rows = this.bins.rows[bin];
    const [low, high] = this.bins.span(bin, bin);
    const images = plural(rows.length, "image", "images");
    const text = (value) => valueText(this.column, value);
    return rows.length === 1 ? `${images} at ${text(low)}` : `${images} from ${text(low)} to ${text(high)}`;
  }

  /** Show images from all bars, until one is pointed at. */
  showAll() {
    const hint = "Point at a bar to see its images. Click it, or drag over several, to keep only those.";
    this.showImages(hint, this.bins.rows.flat().filter((row) => this.mask[row]));
  }

  /** Show the images of a bar below the bars. */
  show(bin) {
    this.shown = bin;
    this.bars.querySelector(".pointed")?.classList.remove("pointed");
    this.bars.children[bin]?.classList.add("pointed");
    this.showImages(this.label(bin), this.bins.rows[bin]);
  }

  /** Show as many images as there is room for, those that the mask has. */
  showImages(text, rows) {
    const found = rows.filter((row) => this.mask[row]);
    const words = found.length < rows.length ? `${text}, ${counted(found.length)} found` : text;
    const room = Math.max(1, Math.floor(this.preview.clientWidth / 62));
    const tiles = evenly(found, room).map((row) => tile(this.ranking, row, this.column, () => this.open(row, found)));
    for (const button of tiles) button.tabIndex = 0;
    this.preview.replaceChildren(element("p", {}, words), element("div", { class: "strip" }, ...tiles));
  }

  binAt(event) {
    const { left, width } = this.bars.getBoundingClientRect();
    const bin = Math.floor(((event.clientX - left) / width) * this.bins.count);
    return Math.min(Math.max(bin, 0), this.bins.count - 1);
  }

  press(event) {
    if (event.button !== 0) return;
    this.pressed = this.binAt(event);
    this.bars.setPointerCapture(event.pointerId);
  }

  point(event) {
    const bin = this.binAt(event);
    if (bin !== this.shown) this.show(bin);
    if (this.pressed === null) return;
    const [first, last] = [Math.min(this.pressed, bin), Math.max(this.pressed, bin)];
    [...this.bars.children].forEach((bar, place) => bar.classList.toggle("dragged", place >= first && place <= last));
  }

  release(event) {
    if (this.pressed === null) return;
    this.choose(this.pressed, this.binAt(event));
    this.pressed = null;
  }

  /** Select bins a..b; a single one again selects everything. */
  choose(a, b) {
    this.at = b;
    const range = this.bins.span(Math.min(a, b), Math.max(a, b));
    const again = a === b && range.every((value, place) => value === this.range[place]);
    this.select(...(again ? [] : range));
  }

  key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -this.bins.count, End: this.bins.count };
    if (event.key in moves) {
      if (!event.shiftKey) this.anchor = undefined;
      else this.anchor ??= this.at;
      this.at = Math.min(Math.max(this.at + moves[event.key], 0), this.bins.count - 1);
      if (event.shiftKey) this.choose(this.anchor, this.at);
      for (const [bin, bar] of [...this.bars.children].entries()) bar.tabIndex = bin === this.at ? 0 : -1;
      this.bars.children[this.at].focus();
    } else if (event.key === "Enter" || event.key === " ") {
      this.choose(this.at, this.at);
      this.bars.children[this.at].focus();
    } else if (event.key === "Escape") {
      this.select();
      this.bars.children[this.at].focus();
    } else {
      return;
    }
    event.preventDefault();
  }
}

/** At most ``room`` of the items, spread evenly. */
function evenly(items, room) {
  if (items.length <= room) return items;
  return Array.from({ length: room }, (_, place) => items[Math.round((place * (items.length - 1)) / Math.max(1, room - 1))]);
}
