// What a cell of the board says, and what all of them together say of the pace.
export const WINDOW_S = 600;
const PAST_DOWNLOAD = ["converting", "loading", "validated"];

/** Name the numbers of a cell; times in seconds, 0 for never. */
export function readCell([shard, state, publishedAt = 0, rows = 0, bytes = 0, fetched = 0, begunAt = 0], states) {
  return { shard, state: states[state], publishedAt, rows, bytes, fetched, begunAt };
}

/** The median size of the source files of shards that are past their download; 0 before any is. */
export function usualBytes(cells) {
  const sizes = cells.filter((cell) => cell.fetched && PAST_DOWNLOAD.includes(cell.state)).map((cell) => cell.fetched);
  return sizes.sort((a, b) => a - b)[sizes.length >> 1] ?? 0;
}

/** How much of a shard is here; undefined where that is not known. What is not done is never 100 %. */
export function percentOf(cell, usual) {
  if (cell.state !== "downloading" || !cell.fetched || !usual) return undefined;
  return Math.min(99, Math.floor((100 * cell.fetched) / usual));
}

/** What was published during the ten minutes before `now`, and the seconds that took. */
export function measurePace(cells, now) {
  const since = now - WINDOW_S;
  const recent = cells.filter((cell) => cell.publishedAt && cell.publishedAt > since);
  const sum = (name) => recent.reduce((total, cell) => total + cell[name], 0);
  const began = recent.reduce((first, cell) => Math.min(first, cell.begunAt || now, cell.publishedAt), now);
  return { seconds: now - Math.max(since, began), shards: recent.length, rows: sum("rows"), bytes: sum("fetched") };
}
