// What happened to one shard: the two facts, its source files, and every attempt with its stages.
import { ask, bytes, duration, el, link, number, when } from "./dom.js";
import { LABELS } from "./grid.js";

export async function readDetails(table, shard) {
  return ask(`board/shards/${shard}?table=${encodeURIComponent(table)}`);
}

/** Return the content of the panel for a cell and what `readDetails` gave, null while it is fetched. */
export function details(cell, percent, history, onClose) {
  const { shard, state } = cell;
  const close = el("button", { class: "button quiet small", type: "button", onclick: onClose, "aria-label": "Close" }, "✕");
  const head = el(
    "header",
    { class: "details-head" },
    el("h2", {}, `Shard ${String(shard).padStart(5, "0")}`),
    el("span", { class: "badge", "data-state": state }, LABELS[state], percent === undefined ? null : ` ${percent} %`),
    el("span", { class: "push" }),
    close,
  );
  if (history === null) return [head, el("p", { class: "soft" }, "Reading the ledger …")];
  if (history instanceof Error) return [head, el("p", { class: "notice" }, history.message)];
  return [head, facts(cell, history.attempts), sources(history.sources), ...history.attempts.map((one, i) => attempt(one, i > 0))];
}

function facts({ state, publishedAt, rows, bytes: size }, attempts) {
  const ends = (one) => one.stages[one.stages.length - 1];
  const publication = attempts.find((one) => one.stages.some((stage) => stage.stage === "publish"));
  const list = el("dl", { class: "facts" });
  const published = [];
  if (publishedAt && publication) {
    const event = publication.stages.find((stage) => stage.stage === "publish");
    published.push(
      [`${number(event.rows_loaded)} rows`, size && bytes(size), when(event.at_ms)].filter(Boolean).join(", "),
      el("br"),
      el("span", { class: "soft mono" }, `attempt ${publication.attempt} · hash ${event.hash}`),
    );
    if (rows !== event.rows_loaded) published.push(el("p", { class: "bad" }, `The table now holds ${number(rows)} rows of this shard.`));
  } else published.push(publishedAt ? `${number(rows)} rows` : "nothing");
  list.append(el("dt", {}, "Published"), el("dd", {}, published));
  const last = attempts[0] && ends(attempts[0]);
  const wasKilled = state === "failed" && last?.state !== "failed";
  const ending = last ? [`${last.stage} ${wasKilled ? "was broken off" : last.state}, ${when(last.at_ms)}`] : ["none"];
  if (wasKilled) ending.push(el("p", { class: "bad" }, "The run ended without a word about this shard: its worker was probably killed."));
  if (last?.state === "failed") ending.push(el("p", { class: "bad" }, el("b", {}, last.error_class), ": ", last.error));
  list.append(el("dt", {}, "Last attempt"), el("dd", {}, ending));
  return list;
}

function sources(urls) {
  const entries = Object.entries(urls);
  if (!entries.length) return null;
  return el(
    "section",
    {},
    el("h3", {}, "Source files"),
    el("ul", { class: "plain" }, entries.map(([role, url]) => el("li", {}, el("span", { class: "soft" }, `${role} `), link(url, url)))),
  );
}

function attempt({ attempt: name, dag_id, run_id, stages }, tellsError) {
  const longest = Math.max(...stages.map((stage) => stage.seconds), 0.001);
  const run = el("a", { href: `../dags/${encodeURIComponent(dag_id)}/runs/${encodeURIComponent(run_id)}`, "data-airflow": true }, run_id);
  const body = el("tbody");
  for (const stage of stages.filter((one) => one.stage !== "publish")) {
    const bar = el("span", { class: "bar-fill" });
    bar.style.width = `${Math.max(2, (100 * stage.seconds) / longest)}%`;
    const isOver = stage.state !== "started";
    body.append(
      el(
        "tr",
        { class: stage.state },
        el("td", {}, stage.stage, stage.try_number > 1 ? el("span", { class: "soft" }, ` try ${stage.try_number}`) : null),
        el("td", { class: "bar-cell" }, isOver ? bar : null),
        el("td", { class: "number" }, isOver ? duration(stage.seconds) : "running"),
        el("td", { class: "number" }, stage.rows_loaded || stage.rows_expected ? number(stage.rows_loaded || stage.rows_expected) : ""),
        el("td", {}, stage.log_url ? link(stage.log_url, "log") : null),
      ),
    );
    if (stage.error && tellsError) body.append(el("tr", {}, el("td", { colspan: 5 }, el("p", { class: "bad" }, el("b", {}, stage.error_class), ": ", stage.error))));
  }
  return el(
    "section",
    { class: "attempt" },
    el("h3", {}, "Attempt ", el("span", { class: "mono" }, name)),
    el("p", { class: "hint" }, "run ", run),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "stage"), el("th", {}), el("th", { class: "number" }, "time"), el("th", { class: "number" }, "rows"), el("th", {}))), body),
  );
}
