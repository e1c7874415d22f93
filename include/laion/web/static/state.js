// The cards below the board: search table, recall, SQL functions.
import { bytes, el, formatShards, number, when } from "./dom.js";

export function stateCards({ search_table: search, functions }) {
  return [searchCard(search), recallCard(search), functionsCard(functions)];
}

function card(title, mark, ...children) {
  return el("article", { class: "card state-card" }, el("h2", {}, el("span", { class: `mark ${mark}`, "aria-hidden": "true" }), title), ...children);
}

function list(entries) {
  return el("dl", { class: "pairs" }, entries.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
}

function searchCard(search) {
  if (!search) return card("Search table", "none", el("p", { class: "soft" }, "None has been built yet."));
  const newer = search.newer_state
    ? el("p", { class: "hint" }, `A newer build is ${search.newer_state}: ${search.buckets_done} of ${search.buckets_planned} partitions.`)
    : null;
  if (!search.build_id) return card("Search table", "none", el("p", { class: "soft" }, "None is in use yet."), newer);
  const isStale = search.stale.length > 0;
  return card(
    "Search table",
    isStale ? "warn" : "good",
    el("p", {}, isStale ? `Behind by ${search.stale.length} shards: ${formatShards(search.stale)}` : "Up to date with every published shard"),
    list([
      ["index", search.index],
      ["rows", number(search.rows) + (search.left_out ? `, ${number(search.left_out)} left out` : "")],
      ...(search.bytes ? [["size", `${bytes(search.bytes)}, in ${search.buckets} ${search.buckets === 1 ? "partition" : "partitions"}`]] : []),
      ["built", `${when(search.at_ms)}, build ${search.build_id}`],
    ]),
    search.chosen ? el("details", { class: "hint" }, el("summary", {}, "Why this kind"), search.chosen) : null,
    newer,
  );
}

function recallCard(search) {
  const measured = search?.recall ?? [];
  if (!measured.length) return card("Recall", "none", el("p", { class: "soft" }, "Not measured yet."));
  const target = measured[0].target;
  const isGood = measured.every((one) => one.recall_at_10 >= target);
  const rows = measured.map((one) =>
    el(
      "tr",
      {},
      el("td", {}, `${one.column.replace("_embedding", "")}, ${one.kind}`),
      el("td", { class: "number" }, one.recall_at_10.toFixed(3)),
      el("td", { class: "number" }, one.recall_at_100.toFixed(3)),
      el("td", { class: "number" }, `${one.ann_p50_ms.toFixed(0)} ms`),
      el("td", { class: "number" }, `${one.exact_p50_ms.toFixed(0)} ms`),
    ),
  );
  const heads = ["", "@10", "@100", "index", "brute force"].map((text, i) => el("th", { class: i ? "number" : undefined }, text));
  return card(
    "Recall",
    isGood ? "good" : "bad",
    el("p", {}, `Target ${target.toFixed(2)} at 10, ${measured[0].profile}`),
    el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)),
  );
}

function functionsCard(functions) {
  if (!functions.length) return card("SQL functions", "none", el("p", { class: "soft" }, "Not deployed on this server."));
  const isGood = functions.every((one) => one.works);
  return card(
    "SQL functions",
    isGood ? "good" : "bad",
    el("p", {}, isGood ? "Loaded by ClickHouse" : "ClickHouse cannot load them"),
    list(functions.map((one) => [el("code", {}, one.name), one.works ? el("span", { class: "mono" }, one.version || "other version") : one.error])),
  );
}
