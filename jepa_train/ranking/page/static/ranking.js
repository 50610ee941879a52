// The ranking that data.js holds: columns as typed arrays, orders and filters of their rows. Nothing here draws.
"use strict";

const MISSING = -1;

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
  return bytes.buffer;
}

/** A column of texts that repeat: one number a row. */
class Texts {
  constructor({ texts, codes }) {
    this.texts = texts;
    this.codes = new Int32Array(bytesOf(codes));
  }

  at(row) {
    const code = this.codes[row];
    return code === MISSING ? null : this.texts[code];
  }
}

function textsOf(data) {
  return data === null ? null : new Texts(data);
}

function medianOf(values) {
  const sorted = values.filter(Number.isFinite).sort();
  if (sorted.length === 0) return NaN;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

class Ranking {
  constructor(data) {
    this.names = data.filename;
    this.size = this.names.length;
    this.total = data.rows;
    this.numbers = new Map();
    for (const { name, meaning, typical, values } of data.numbers) {
      this.numbers.set(name, { name, meaning, typical, values: new Float64Array(bytesOf(values)) });
    }
    this.classes = textsOf(data.class);
    this.reasons = textsOf(data.reason);
    this.nearest = data.nearest && new Int32Array(bytesOf(data.nearest.rows));
    this.nearestElsewhere = data.nearest && textsOf(data.nearest.elsewhere);
    this.places = new Int32Array(bytesOf(data.places));
    this.side = data.side;
    this.images = data.images;
    this.summary = data.summary;
    this.lowerNames = this.names.map((name) => name.toLowerCase());
    this.orders = new Map();
    this.standings = new Map();
  }

  /** Names of the columns of numbers that have a value anywhere. */
  get scores() {
    const columns = [...this.numbers.values()];
    return columns.filter(({ values }) => values.some((value) => !Number.isNaN(value))).map(({ name }) => name);
  }

  /** A number, or null where it is missing. */
  value(column, row) {
    const value = this.numbers.get(column)?.values[row];
    return value === undefined || Number.isNaN(value) ? null : value;
  }

  className(row) {
    return this.classes?.at(row) ?? null;
  }

  reason(row) {
    return this.reasons?.at(row) ?? null;
  }

  nearestName(row) {
    if (!this.nearest) return null;
    return this.nearest[row] === MISSING ? (this.nearestElsewhere?.at(row) ?? null) : this.names[this.nearest[row]];
  }

  /** The address of an original, seen from the page; null without one. */
  address(row) {
    if (this.images === null) return null;
    return `${this.images || "."}/${this.names[row]}`.split("/").map(encodeURIComponent).join("/");
  }

  /** All rows by a column; those without a value come last, whichever the direction. */
  order(column, descending) {
    const key = `${column} ${descending}`;
    if (!this.orders.has(key)) this.orders.set(key, this.sorted(column, descending));
    return this.orders.get(key);
  }

  sorted(column, descending) {
    const { missing, compare } = this.comparison(column);
    const rows = Int32Array.from(this.names.keys());
    const present = rows.filter((row) => !missing(row)).sort(descending ? (a, b) => compare(b, a) : compare);
    const sorted = new Int32Array(this.size);
    sorted.set(present);
    sorted.set(rows.filter(missing), present.length);
    return sorted;
  }

  comparison(column) {
    if (column === "filename") {
      const collator = new Intl.Collator("en", { numeric: true });
      return { missing: () => false, compare: (a, b) => collator.compare(this.names[a], this.names[b]) };
    }
    if (column === "class" || column === "reason") {
      const codes = (column === "class" ? this.classes : this.reasons)?.codes ?? new Int32Array(this.size).fill(MISSING);
      return { missing: (row) => codes[row] === MISSING, compare: (a, b) => codes[a] - codes[b] };
    }
    const { values } = this.numbers.get(column);
    return { missing: (row) => Number.isNaN(values[row]), compare: (a, b) => values[a] - values[b] };
  }

  /** Whether the least typical rows come last in ascending order. */
  leastFirstDescends(column) {
    return this.numbers.get(column)?.typical === -1;
  }

  /** Percent of the rows that stand before each one, the least typical first; NaN without a value. */
  standing(column) {
    if (!this.standings.has(column)) {
      const order = this.order(column, this.leastFirstDescends(column));
      const present = order.filter((row) => this.value(column, row) !== null);
      const standing = new Float32Array(this.size).fill(NaN);
      present.forEach((row, place) => (standing[row] = (100 * (place + 0.5)) / present.length));
      this.standings.set(column, standing);
    }
    return this.standings.get(column);
  }

  /** A 1 for each row whose name has the text, that is of the class (MISSING: of any). */
  found(text, chosenClass) {
    const mask = new Uint8Array(this.size);
    const sought = text.toLowerCase();
    for (let row = 0; row < this.size; row++) {
      const ofClass = chosenClass === MISSING || this.classes.codes[row] === chosenClass;
      mask[row] = ofClass && this.lowerNames[row].includes(sought) ? 1 : 0;
    }
    return mask;
  }

  /** A 1 for each row of the mask that has a value in [low, high], or has none where those are sought. */
  within(mask, column, { low, high, missing }) {
    const { values } = this.numbers.get(column);
    const all = !missing && low === -Infinity && high === Infinity;
    if (all) return mask;
    return mask.map((found, row) => {
      const value = values[row];
      return found && (missing ? Number.isNaN(value) : value >= low && value <= high) ? 1 : 0;
    });
  }

  /** Pairs of an image and its nearest one, each pair once, the most alike first. */
  get pairs() {
    this.allPairs ??= this.findPairs();
    return this.allPairs;
  }

  findPairs() {
    if (!this.nearest || !this.numbers.has("nearest_distance")) return [];
    const mutual = (row) => this.nearest[row] !== MISSING && this.nearest[this.nearest[row]] === row;
    const rows = this.order(this.comparesThumbnails ? "nearest_difference" : "nearest_distance", false);
    return [...rows.filter((row) => this.nearestName(row) !== null && !(mutual(row) && this.nearest[row] < row))];
  }

  /** Whether pairs are compared by their thumbnails, not by their embeddings alone. */
  get comparesThumbnails() {
    return this.numbers.get("nearest_difference")?.values.some(Number.isFinite) ?? false;
  }

  /** The median distance between an image and its nearest one. */
  get typicalDistance() {
    this.medianDistance ??= medianOf(this.numbers.get("nearest_distance").values);
    return this.medianDistance;
  }
}
