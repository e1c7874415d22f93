// The grid of cells: one per shard, in rows of a round number, moved through by arrow keys.
import { percentOf, readCell, usualBytes } from "./cells.js";
import { el, number } from "./dom.js";

export const LABELS = {
  unplanned: "not planned",
  queued: "queued",
  downloading: "downloading",
  converting: "converting",
  loading: "loading",
  validated: "validated",
  failed: "failed",
  mismatched: "mismatched",
  missing: "missing",
};

const COLUMNS = [10, 20, 25, 50, 100];
const GAP = 3;
const LABEL_WIDTH = 46;
const MANY = 1000;
// Pixels of a cell: so small that signs can still be told apart, and so large as looks well.
const SIZES = { few: [20, 30], many: [14, 22] };

export class Grid {
  /** `onOpen(shard)` shows a shard; `onSelect()` follows each change of the selection. */
  constructor(root, states, { onOpen, onSelect }) {
    this.root = root;
    this.states = states;
    this.onOpen = onOpen;
    this.onSelect = onSelect;
    this.cells = new Map();
    this.nodes = new Map();
    this.selected = new Set();
    this.shown = new Set();
    this.anchor = null;
    root.addEventListener("click", (event) => this.#clicked(event));
    root.addEventListener("keydown", (event) => this.#pressed(event));
    new ResizeObserver(() => this.#arrange(false)).observe(root);
  }

  /** Show these cells and no others. */
  replace(sent) {
    const cells = sent.map((cell) => readCell(cell, this.states));
    const isSame = cells.length === this.cells.size && cells.every((cell) => this.cells.has(cell.shard));
    if (isSame) this.#change(cells);
    else this.#replace(cells);
  }

  /** Change some cells. */
  update(sent) {
    const cells = sent.map((cell) => readCell(cell, this.states));
    if (cells.every((cell) => this.cells.has(cell.shard))) return this.#change(cells);
    const all = new Map([...this.cells, ...cells.map((cell) => [cell.shard, cell])]);
    this.#replace([...all.values()].sort((a, b) => a.shard - b.shard));
  }

  #replace(cells) {
    this.cells = new Map(cells.map((cell) => [cell.shard, cell]));
    this.usual = usualBytes(cells);
    this.selected = new Set([...this.selected].filter((shard) => this.cells.has(shard)));
    this.nodes = new Map(cells.map((cell) => [cell.shard, this.#node(cell)]));
    this.root.classList.toggle("many", cells.length > MANY);
    this.#arrange(true);
  }

  #change(cells) {
    const before = new Map(cells.map((cell) => [cell.shard, this.cells.get(cell.shard).state]));
    for (const cell of cells) this.cells.set(cell.shard, cell);
    this.usual = usualBytes([...this.cells.values()]);
    for (const cell of cells) {
      const node = this.nodes.get(cell.shard);
      this.#paint(node, cell);
      if (before.get(cell.shard) !== cell.state) {
        node.classList.remove("changed");
        void node.offsetWidth;
        node.classList.add("changed");
      }
    }
  }

  /** How much of a shard is downloaded; undefined where that is not known. */
  percent(shard) {
    return percentOf(this.cells.get(shard), this.usual);
  }

  /** Dim the cells whose state is not among these; an empty set shows all. */
  filter(states) {
    this.shown = states;
    for (const [shard, node] of this.nodes) this.#paint(node, this.cells.get(shard));
  }

  select(shards) {
    this.selected = new Set([...shards].filter((shard) => this.cells.has(shard)));
    for (const [shard, node] of this.nodes) node.setAttribute("aria-selected", this.selected.has(shard));
    this.onSelect();
  }

  shardsIn(state) {
    return [...this.cells.values()].filter((cell) => cell.state === state).map((cell) => cell.shard);
  }

  /** Mark the cell whose details are open. */
  markOpen(shard) {
    this.root.querySelector(".open")?.classList.remove("open");
    this.nodes.get(shard)?.classList.add("open");
  }

  focus(shard) {
    const node = this.nodes.get(shard);
    if (!node) return;
    this.root.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    node.setAttribute("tabindex", "0");
    node.focus();
  }

  #node(cell) {
    const node = el("div", { role: "gridcell", class: "cell", tabindex: "-1", "data-shard": cell.shard });
    node.setAttribute("aria-selected", this.selected.has(cell.shard));
    this.#paint(node, cell);
    return node;
  }

  #paint(node, cell) {
    const { shard, state, publishedAt, rows } = cell;
    const percent = percentOf(cell, this.usual);
    const isEarlier = publishedAt && state !== "validated";
    node.dataset.state = state;
    node.classList.toggle("published", Boolean(isEarlier));
    node.classList.toggle("dim", this.shown.size > 0 && !this.shown.has(state));
    const published = isEarlier ? `, published with ${number(rows)} rows` : "";
    const share = percent === undefined ? "" : ` ${percent} %`;
    node.style.setProperty("--done", `${percent ?? 0}%`);
    const title = `Shard ${shard}: ${LABELS[state]}${share}${published}`;
    node.setAttribute("aria-label", title);
    node.title = title;
  }

  #arrange(isNew) {
    const [smallest, largest] = this.cells.size > MANY ? SIZES.many : SIZES.few;
    const room = this.root.clientWidth - LABEL_WIDTH;
    const enough = COLUMNS.find((count) => count > Math.max(0, ...this.cells.keys())) ?? Infinity;
    const fits = (count) => count <= enough && count * (smallest + GAP) <= room;
    const columns = COLUMNS.findLast(fits) ?? COLUMNS[0];
    const size = Math.min(largest, Math.max(smallest, Math.floor(room / columns) - GAP));
    this.root.style.setProperty("--columns", columns);
    this.root.style.setProperty("--size", `${size}px`);
    if (!isNew && columns === this.columns) return;
    this.columns = columns;
    const focused = document.activeElement?.dataset?.shard;
    const rows = new Map();
    for (const [shard, node] of this.nodes) {
      const row = Math.floor(shard / columns);
      if (!rows.has(row)) rows.set(row, []);
      node.style.gridColumn = `${(shard % columns) + 2}`;
      rows.get(row).push(node);
    }
    this.root.replaceChildren(
      ...[...rows].map(([row, nodes]) => {
        const label = el("span", { class: "row-label", role: "rowheader" }, number(row * columns));
        return el("div", { role: "row", class: "row" }, label, nodes);
      }),
    );
    const first = this.root.querySelector('[tabindex="0"]') ?? this.root.querySelector(".cell");
    first?.setAttribute("tabindex", "0");
    if (focused !== undefined) this.nodes.get(Number(focused))?.focus();
  }

  #clicked(event) {
    const node = event.target.closest(".cell");
    if (!node) return;
    const shard = Number(node.dataset.shard);
    this.focus(shard);
    if (event.shiftKey && this.anchor !== null) this.#extend(shard);
    else if (event.ctrlKey || event.metaKey) this.#toggle(shard);
    else {
      this.anchor = shard;
      this.onOpen(shard);
    }
  }

  #pressed(event) {
    const node = event.target.closest(".cell");
    if (!node) return;
    const shard = Number(node.dataset.shard);
    if (event.key === " ") this.#toggle(shard);
    else if (event.key === "Enter") this.onOpen(shard);
    else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) {
      this.select([...this.nodes].filter(([, cell]) => !cell.classList.contains("dim")).map(([number]) => number));
    } else {
      const next = this.#target(event, shard);
      if (next === undefined) return;
      if (event.shiftKey) {
        this.anchor ??= shard;
        this.#extend(next);
      } else this.anchor = null;
      this.focus(next);
    }
    event.preventDefault();
  }

  /** Where a key leads from a shard; undefined for another key. */
  #target(event, shard) {
    const shards = [...this.cells.keys()];
    const at = shards.indexOf(shard);
    const page = this.columns * 10;
    switch (event.key) {
      case "ArrowLeft": return shards[Math.max(0, at - 1)];
      case "ArrowRight": return shards[Math.min(shards.length - 1, at + 1)];
      case "ArrowUp": return this.cells.has(shard - this.columns) ? shard - this.columns : shard;
      case "ArrowDown": return this.cells.has(shard + this.columns) ? shard + this.columns : shard;
      case "PageUp": return shards[Math.max(0, at - page)];
      case "PageDown": return shards[Math.min(shards.length - 1, at + page)];
      case "Home": return event.ctrlKey ? shards[0] : shards.find((s) => Math.floor(s / this.columns) === Math.floor(shard / this.columns));
      case "End": return event.ctrlKey ? shards[shards.length - 1] : shards.findLast((s) => Math.floor(s / this.columns) === Math.floor(shard / this.columns));
      default: return undefined;
    }
  }

  #toggle(shard) {
    const selected = new Set(this.selected);
    if (!selected.delete(shard)) selected.add(shard);
    this.anchor = shard;
    this.select(selected);
  }

  #extend(shard) {
    const [first, last] = [Math.min(this.anchor, shard), Math.max(this.anchor, shard)];
    this.select([...this.cells.keys()].filter((number) => number >= first && number <= last));
  }
}
