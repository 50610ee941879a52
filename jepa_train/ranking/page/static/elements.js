// What all parts of the page draw with: elements, words for numbers, thumbnails.
"use strict";

const byId = (id) => document.getElementById(id);

/** Make an element. Attributes may be functions, which listen ("onclick"); children that are texts stay texts. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const counted = (count) => count.toLocaleString("en");

const plural = (count, one, many) => `${counted(count)} ${count === 1 ? one : many}`;

const spaced = (name) => name.replaceAll("_", " ");

/** A number as short as five digits allow; "none" where it is missing. */
function numberText(value) {
  if (value === null || Number.isNaN(value)) return "none";
  if (Number.isInteger(value)) return counted(value);
  return String(Number(value.toPrecision(5)));
}

function valueText(column, value) {
  if (value === null) return "none";
  if (column.endsWith("percentile")) return `${value.toFixed(1)} %`;
  if (column === "compressed_size") return `${counted(value)} bytes`;
  return numberText(value);
}

/** The last part of a path. */
const baseName = (path) => path.slice(path.lastIndexOf("/") + 1);

/** Part of a sprite as the square that its style --size says; its sheet is loaded when it is shown. */
function thumbnail(ranking, row) {
  const place = ranking.places[row];
  if (place === MISSING) return element("span", { class: "thumb none", "aria-hidden": "true" }, "no picture");
  const within = place % ranking.side ** 2;
  const thumb = element("span", { class: "thumb", "aria-hidden": "true" });
  thumb.style.backgroundImage = `url("page/sprite_${Math.floor(place / ranking.side ** 2)}.jpg")`;
  thumb.style.setProperty("--side", ranking.side);
  thumb.style.setProperty("--x", within % ranking.side);
  thumb.style.setProperty("--y", Math.floor(within / ranking.side));
  return thumb;
}

/** What a screen reader says of an image. */
function spokenText(ranking, row, score) {
  const parts = [ranking.names[row], `${spaced(score)} ${valueText(score, ranking.value(score, row))}`];
  if (ranking.reason(row)) parts.push(ranking.reason(row));
  return parts.join(", ");
}

/** A thumbnail that opens its image; with a caption, its score and name below. */
function tile(ranking, row, score, open, { caption = false } = {}) {
  const value = ranking.value(score, row);
  const text = spokenText(ranking, row, score);
  const button = element("button", {
    type: "button", class: "tile item", "aria-label": text, title: text, tabindex: "-1", onclick: open,
  });
  button.dataset.row = row;
  button.append(thumbnail(ranking, row));
  const standing = ranking.standing(score)[row];
  if (caption) {
    button.append(
      element("span", { class: "standing", style: `--standing: ${Number.isNaN(standing) ? 0 : standing.toFixed(1)}` }),
      element("span", { class: value === null ? "value missing" : "value" }, valueText(score, value)),
      element("span", { class: "name" }, baseName(ranking.names[row])),
    );
  }
  return button;
}
