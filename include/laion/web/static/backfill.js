// Loading shards again: shows what would be done, and on confirmation asks Airflow for the run.
import { ask, byId, el, formatShards, number } from "./dom.js";

const SHOWN = 200;

/** Ask, confirm, start. Return the id of the run that was started, or null. */
export async function backfill(table, dagId, shards) {
  const dialog = byId("dialog");
  const closed = new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue || null);
  });
  dialog.returnValue = "";
  const cancel = el("button", { class: "button", type: "button", onclick: () => dialog.close("") }, "Cancel");
  const frame = (...content) => dialog.replaceChildren(el("div", {}, el("h2", { id: "dialog-title" }, `Load ${count(shards.size)} again?`), content));
  frame(el("p", { class: "soft" }, "Looking at what would be done …"), el("footer", {}, cancel));
  dialog.showModal();
  let plan;
  try {
    plan = await ask("board/backfill", json({ table, shards: formatShards(shards) }));
  } catch (problem) {
    frame(el("p", { class: "notice" }, problem.message), el("footer", {}, cancel));
    return closed;
  }
  const failure = el("p", { class: "notice", role: "alert", hidden: true });
  const start = el("button", { class: "button primary", type: "button" }, "Start the run");
  start.disabled = !plan.conf;
  start.addEventListener("click", async () => {
    start.disabled = true;
    try {
      // Airflow itself decides whether the caller may, checks the params and writes the audit log.
      const run = await ask(`../api/v2/dags/${dagId}/dagRuns`, json({ conf: plan.conf, logical_date: null, note: "Backfill from the board" }));
      dialog.close(run.dag_run_id);
    } catch (problem) {
      failure.textContent = problem.message;
      failure.hidden = false;
      start.disabled = false;
    }
  });
  frame(summary(plan, dagId), repairs(plan.repairs), params(plan.conf), failure, el("footer", {}, cancel, start));
  start.focus();
  return closed;
}

const count = (shards) => (shards === 1 ? "1 shard" : `${number(shards)} shards`);
const json = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

function summary({ repairs: found, conf }, dagId) {
  const waiting = found.filter((repair) => repair.action === "wait").length;
  const left = waiting ? ` ${count(waiting)} are left to the run that is at work on them.` : "";
  if (!conf) return el("p", {}, `Nothing is to be done.${left}`);
  const then = [conf.build_index && "the search table is brought up to date", conf.deploy_udfs && "the SQL functions are deployed"].filter(Boolean);
  const after = then.length ? ` Then ${then.join(" and ")}.` : "";
  return el("p", {}, el("code", {}, dagId), ` would load ${count(found.length - waiting)} into table `, el("code", {}, conf.table), `.${after}${left} Readers see the old rows until the new ones are in.`);
}

function repairs(found) {
  const rows = found.slice(0, SHOWN).map((repair) =>
    el(
      "tr",
      { class: repair.action },
      el("td", { class: "number" }, repair.shard),
      el("td", {}, repair.action === "wait" ? "left alone" : "load"),
      el("td", { class: "number" }, number(repair.rows_held)),
      el("td", {}, repair.why),
    ),
  );
  if (found.length > SHOWN) rows.push(el("tr", {}, el("td", { colspan: 4, class: "soft" }, `and ${number(found.length - SHOWN)} more`)));
  const head = el("tr", {}, el("th", { class: "number" }, "shard"), el("th", {}), el("th", { class: "number" }, "rows in"), el("th", {}, "why"));
  return el("div", { class: "repairs", tabindex: "0" }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows)));
}

function params(conf) {
  return conf && el("details", {}, el("summary", {}, "Params of the run"), el("pre", {}, JSON.stringify(conf, null, 2)));
}
