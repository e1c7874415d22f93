// The page Shards: draws the board that came with the page, then asks for changes.
import { backfill } from "./backfill.js";
import { measurePace } from "./cells.js";
import { details, readDetails } from "./details.js";
import { ask, byId, bytes, duration, el, formatShards, number, pageData, parseShards, short } from "./dom.js";
import { Grid, LABELS } from "./grid.js";
import { leaveFrame } from "./leave.js";
import { stateCards } from "./state.js";

const BUSY_MS = 2000;
const IDLE_MS = 5000;
const WHOLE_EVERY_MS = 60000;
const STATE_EVERY_MS = 15000;
const MIN_PACE_S = 5;
const DONE_FIRST = ["validated", "mismatched", "missing", "failed", "loading", "converting", "downloading", "queued", "unplanned"];
const REPAIRED = ["failed", "missing"];
const IN_WORK = ["queued", "downloading", "converting", "loading"];

const { states, dag_id: dagId, may_trigger: mayTrigger, tables = [], board, error } = pageData();
let { table, dataset, rows_expected: rowsExpected } = board ?? {};
let cursor = board?.changes.cursor ?? 0;
let opened = null;
let wholeAt = Date.now();
let stateAt = Date.now();
const filters = new Set();

const grid = new Grid(byId("grid"), states, { onOpen: open, onSelect: showSelection });
const counts = () => {
  const found = Object.fromEntries(states.map((state) => [state, 0]));
  for (const cell of grid.cells.values()) found[cell.state] += 1;
  return found;
};

function showTotals() {
  const found = counts();
  const cells = [...grid.cells.values()];
  const sum = (name) => cells.reduce((total, cell) => total + cell[name], 0);
  const pace = measurePace(cells, cursor / 1e6);
  byId("total-shards").textContent = number(found.validated);
  byId("of-shards").textContent = ` of ${number(cells.length)} validated`;
  byId("total-rows").textContent = number(sum("rows"));
  byId("of-rows").textContent = rowsExpected ? ` of ${number(rowsExpected)}` : "";
  byId("total-bytes").textContent = sum("bytes") ? bytes(sum("bytes")) : "–";
  const left = IN_WORK.reduce((total, state) => total + found[state], 0);
  const isMoving = pace.seconds >= MIN_PACE_S && pace.shards > 0 && left > 0;
  byId("pace").textContent = isMoving ? `${short((60 * pace.rows) / pace.seconds)} rows/min` : "–";
  byId("pace-bytes").textContent = isMoving && pace.bytes ? ` ${bytes(pace.bytes / pace.seconds)}/s fetched` : "";
  byId("eta").textContent = isMoving ? duration((left * pace.seconds) / pace.shards) : left ? "…" : "–";
  byId("eta-shards").textContent = left ? ` ${number(left)} shards` : "";
  const parts = DONE_FIRST.filter((state) => found[state]).map((state) => {
    const part = el("span", { "data-state": state });
    part.style.flexGrow = found[state];
    return part;
  });
  byId("progress").replaceChildren(...parts);
  byId("unplanned").hidden = found.unplanned < cells.length;
  showChips(found);
  byId("backfill-failed").hidden = !mayTrigger;
  byId("backfill-failed").disabled = !REPAIRED.some((state) => found[state]);
  return left;
}

function showChips(found) {
  const chips = byId("chips");
  if (!chips.children.length) {
    chips.append(
      ...states.map((state) =>
        el(
          "button",
          { class: "chip", type: "button", "data-state": state, "aria-pressed": "false", onclick: () => toggleFilter(state) },
          el("span", { class: "cell", "data-state": state, "aria-hidden": "true" }),
          `${LABELS[state]} `,
          el("b"),
        ),
      ),
    );
  }
  for (const chip of chips.children) {
    chip.querySelector("b").textContent = number(found[chip.dataset.state]);
    chip.classList.toggle("empty", !found[chip.dataset.state]);
  }
}

function toggleFilter(state) {
  if (!filters.delete(state)) filters.add(state);
  for (const chip of byId("chips").children) chip.setAttribute("aria-pressed", filters.has(chip.dataset.state));
  grid.filter(filters);
}

function showSelection() {
  const count = grid.selected.size;
  const field = byId("expression");
  if (document.activeElement !== field) field.value = formatShards(grid.selected);
  byId("selection").textContent = count ? `${number(count)} selected` : "";
  byId("backfill").hidden = !mayTrigger;
  byId("backfill").disabled = !count;
}

byId("expression").addEventListener("input", (event) => {
  const text = event.target.value.trim();
  const shards = text ? parseShards(text) : new Set();
  event.target.setAttribute("aria-invalid", shards === null);
  if (shards) grid.select(shards);
});

async function startBackfill(shards) {
  const runId = await backfill(table, dagId, shards);
  if (!runId) return;
  const run = el("a", { href: `../dags/${dagId}/runs/${encodeURIComponent(runId)}`, "data-airflow": true }, runId);
  byId("started").replaceChildren("Started run ", run, ".");
  byId("started").hidden = false;
  grid.select([]);
}

byId("backfill").addEventListener("click", () => startBackfill(grid.selected));
byId("backfill-failed").addEventListener("click", () => startBackfill(new Set(REPAIRED.flatMap((state) => grid.shardsIn(state)))));

async function open(shard) {
  opened = shard;
  grid.markOpen(shard);
  window.history.replaceState(null, "", `#${shard}`);
  const panel = byId("details");
  panel.hidden = false;
  showDetails(null);
  await refreshDetails();
  if (matchMedia("(max-width: 1100px)").matches) panel.scrollIntoView({ block: "nearest" });
}

async function refreshDetails() {
  const shard = opened;
  const history = await readDetails(table, shard).catch((problem) => problem);
  if (shard === opened) showDetails(history);
}

function showDetails(history) {
  byId("details").replaceChildren(...details(grid.cells.get(opened), grid.percent(opened), history, close).filter(Boolean));
}

function close() {
  const shard = opened;
  opened = null;
  byId("details").hidden = true;
  grid.markOpen(null);
  window.history.replaceState(null, "", window.location.pathname + window.location.search);
  grid.focus(shard);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && opened !== null && !byId("dialog").open) close();
});

function showError(text) {
  byId("error").hidden = !text;
  byId("error").textContent = text ?? "";
  byId("live").classList.toggle("off", Boolean(text));
  byId("live").textContent = text ? "Not live" : "Live";
}

function take(changes) {
  cursor = changes.cursor;
  grid.update(changes.cells);
  if (changes.cells.some((cell) => cell[0] === opened)) refreshDetails();
}

async function refresh() {
  const query = `table=${encodeURIComponent(table)}&dataset=${encodeURIComponent(dataset)}`;
  const isWhole = Date.now() - wholeAt > WHOLE_EVERY_MS;
  if (isWhole) {
    const whole = await ask(`board?${query}`);
    rowsExpected = whole.rows_expected;
    wholeAt = Date.now();
    grid.replace(whole.changes.cells);
    take(whole.changes);
  } else take(await ask(`board/changes?${query}&since=${cursor}`));
  if (Date.now() - stateAt > STATE_EVERY_MS) await showState();
}

async function showState() {
  stateAt = Date.now();
  byId("state").replaceChildren(...stateCards(await ask(`board/state?table=${encodeURIComponent(table)}`)));
}

async function follow() {
  let left = 0;
  if (!document.hidden) {
    try {
      await refresh();
      left = showTotals();
      showError(null);
    } catch (problem) {
      showError(problem.message);
    }
  }
  setTimeout(follow, left ? BUSY_MS : IDLE_MS);
}

leaveFrame();
byId("dag").textContent = dagId;
byId("dag").href = `../dags/${dagId}`;
const choice = byId("table");
choice.append(...tables.map((one) => el("option", { value: one.table, selected: one.table === table }, one.table === one.dataset ? one.table : `${one.table} (${one.dataset})`)));
choice.addEventListener("change", () => window.location.assign(`?table=${encodeURIComponent(choice.value)}`));
if (error) showError(error);
else {
  grid.replace(board.changes.cells);
  showTotals();
  showSelection();
  showError(null);
  showState().catch((problem) => showError(problem.message));
  const asked = Number(window.location.hash.slice(1));
  if (window.location.hash && grid.cells.has(asked)) open(asked);
  setTimeout(follow, BUSY_MS);
}
