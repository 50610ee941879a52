// A list of any length that holds only the rows in sight, and moves the focus by the arrow keys.
"use strict";

const BEYOND = 3; // rows drawn above and below the window

/**
 * Draws a view: an object with ``layout(width)``, ``rowCount``, ``rowHeight`` (pixels), ``row(index)``, an element whose
 * parts of class "item" take the focus, and perhaps ``head()``. The page itself scrolls.
 */
class VirtualList {
  /** The rows stand in ``list``, in ``scroller``, below ``head`` and ``controls``. */
  constructor({ list, scroller, head, controls }) {
    Object.assign(this, { list, scroller, head, controls, view: null, width: 0, drawn: new Map(), at: { row: 0, place: 0 } });
    scroller.addEventListener("scroll", () => (head.scrollLeft = scroller.scrollLeft));
    addEventListener("scroll", () => this.drawSoon(), { passive: true });
    addEventListener("resize", () => this.drawSoon());
    new ResizeObserver(() => this.width !== scroller.clientWidth && this.layout()).observe(scroller);
    list.addEventListener("keydown", (event) => this.move(event));
    list.addEventListener("focusin", (event) => this.remember(event.target.closest(".item")));
  }

  show(view) {
    this.view = view;
    this.at = { row: 0, place: 0 };
    this.layout();
  }

  layout() {
    this.width = this.scroller.clientWidth;
    this.view.layout(this.width);
    this.head.replaceChildren(...(this.view.head ? [this.view.head()] : []));
    this.list.style.height = `${this.view.rowCount * this.view.rowHeight}px`;
    this.list.replaceChildren();
    this.drawn.clear();
    this.draw();
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  draw() {
    if (this.view === null) return;
    const { rowHeight, rowCount } = this.view;
    const top = -this.list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / rowHeight) - BEYOND);
    const last = Math.min(rowCount - 1, Math.floor((top + innerHeight) / rowHeight) + BEYOND);
    for (const [row, element] of this.drawn) {
      const used = element.contains(document.activeElement);
      if ((row < first || row > last) && !used) {
        element.remove();
        this.drawn.delete(row);
      }
    }
    for (let row = last; row >= first; row--) if (!this.drawn.has(row)) this.insert(row);
    this.keepReachable(first, last);
  }

  insert(row) {
    const element = this.view.row(row);
    element.style.top = `${row * this.view.rowHeight}px`;
    element.style.height = `${this.view.rowHeight}px`;
    element.setAttribute("aria-rowindex", row + 1 + (this.view.head ? 1 : 0));
    this.list.insertBefore(element, this.drawn.get(row + 1) ?? null);
    this.drawn.set(row, element);
  }

  /** One item takes the focus by Tab: the last one that had it, or the first in sight. */
  keepReachable(first, last) {
    if (this.at.row < first || this.at.row > last) this.at = { row: Math.min(first + BEYOND, last), place: 0 };
    for (const item of this.list.querySelectorAll('.item[tabindex="0"]')) item.tabIndex = -1;
    const item = this.items(this.at.row)[this.at.place];
    if (item) item.tabIndex = 0;
  }

  items(row) {
    return [...(this.drawn.get(row)?.querySelectorAll(".item") ?? [])];
  }

  remember(item) {
    if (item === null) return;
    const row = [...this.drawn].find(([, element]) => element.contains(item))[0];
    this.at = { row, place: this.items(row).indexOf(item) };
    this.keepReachable(row, row);
  }

  move(event) {
    const { row, place } = this.at;
    const page = Math.max(1, Math.floor(innerHeight / this.view.rowHeight) - 1);
    const targets = {
      ArrowUp: [row - 1, place],
      ArrowDown: [row + 1, place],
      PageUp: [row - page, place],
      PageDown: [row + page, place],
      ArrowLeft: place > 0 ? [row, place - 1] : [row - 1, Infinity],
      ArrowRight: place < this.items(row).length - 1 ? [row, place + 1] : [row + 1, 0],
      Home: [0, 0],
      End: [this.view.rowCount - 1, Infinity],
    };
    if (!(event.key in targets) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const [wanted, column] = targets[event.key];
    const target = Math.min(Math.max(wanted, 0), this.view.rowCount - 1);
    if (target === row && wanted !== target && event.key.startsWith("Arrow")) return;
    this.focus(target, column);
  }

  focus(row, place) {
    this.reveal(row);
    this.draw();
    const items = this.items(row);
    items[Math.min(place, items.length - 1)]?.focus({ preventScroll: true });
  }

  reveal(row) {
    const top = this.list.getBoundingClientRect().top + row * this.view.rowHeight;
    const above = top - Math.max(0, this.controls.getBoundingClientRect().bottom);
    const below = top + this.view.rowHeight - innerHeight;
    if (above < 0) scrollBy({ top: above - 8, behavior: "instant" });
    else if (below > 0) scrollBy({ top: below + 8, behavior: "instant" });
  }
}
