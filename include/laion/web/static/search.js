// The page Search: asks by words, by a picture or by a row, and shows what was found and how.
import { ask, byId, duration, el, link, number, pageData } from "./dom.js";
import { leaveFrame } from "./leave.js";

const SAFE_FLAGS = ["UNLIKELY", ""];
const OWN_PLACE = ["url", "caption", "NSFW", "width", "height"];
const VECTORS = { image_embedding: "pictures", text_embedding: "captions" };
const METHODS = { index: "the search table", exact: "brute force" };

const { tables, filters, columns, max_picture_bytes: maxPictureBytes, error } = pageData();
const FIELDS = ["words", "column", "limit", ...filters.map((one) => one.parameter)];
const LISTS = filters.filter((one) => one.type === "String" && !one.contains);
let picture = null;
let like = null;
let running = null;

const method = () => document.querySelector("[name=method]:checked").value;

const chosenTable = () => tables.find((one) => one.table === byId("table").value);

function offerVectors() {
  const before = byId("column").value;
  const { vectors } = chosenTable();
  byId("column").replaceChildren(...vectors.map((value) => el("option", { value, selected: value === before }, VECTORS[value] ?? value)));
}

function query() {
  const chosen = chosenTable();
  const params = new URLSearchParams({ table: chosen.table, dataset: chosen.dataset, method: method() });
  for (const name of FIELDS) {
    const value = byId(name).value.trim();
    if (!value || (name === "words" && (picture || like !== null))) continue;
    const values = LISTS.some((one) => one.parameter === name) ? value.split(",").map((one) => one.trim()) : [value];
    for (const one of values) params.append(name, one);
  }
  if (like !== null && !picture) params.set("like", like);
  if (byId("distinct").checked) params.set("distinct", "true");
  return params;
}

const hasTarget = () => Boolean(picture || like !== null || byId("words").value.trim());

async function search() {
  if (!hasTarget()) return;
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const params = query();
  if (!picture) window.history.replaceState(null, "", `?${params}`);
  byId("results").setAttribute("aria-busy", "true");
  try {
    const options = picture ? { method: "POST", body: picture, signal } : { signal };
    show(await ask(`search/results?${params}`, options));
    showError(null);
  } catch (problem) {
    if (problem.name === "AbortError") return;
    byId("results").replaceChildren();
    byId("summary").hidden = true;
    showError(problem.message);
  }
  byId("results").removeAttribute("aria-busy");
}

function showError(text) {
  byId("error").hidden = !text;
  byId("error").textContent = text ?? "";
}

function show(found) {
  const { hits, runs, overlap } = found;
  const times = Object.entries(runs).map(([name, run]) => {
    const fellBack = name === "index" && run.is_exact && run.is_fallback ? " (which found too few, so every row was read)" : "";
    return el("span", { class: "time" }, `${METHODS[name]} `, el("b", {}, duration(run.seconds)), fellBack);
  });
  const parts = [el("span", {}, el("b", {}, number(hits.length)), " rows"), ...times];
  if (overlap !== undefined) parts.push(el("span", { class: "overlap" }, "the search table found ", el("b", {}, `${overlap} of ${hits.length}`), " of brute force"));
  parts.push(el("span", { class: "soft" }, `by ${found.encoded_by}`), el("span", { class: "push" }), sqlButton());
  byId("summary").hidden = false;
  byId("summary").replaceChildren(el("div", { class: "figures" }, parts), sqlPanel(runs));
  byId("results").replaceChildren(...hits.map(card));
  if (!hits.length) byId("results").append(el("p", { class: "soft" }, "Nothing passes these filters."));
  for (const { parameter, column } of LISTS) {
    const found = [...new Set(hits.map((hit) => hit[column]))].filter(Boolean);
    document.getElementById(`${parameter}_values`)?.replaceChildren(...found.map((value) => el("option", { value })));
  }
}

function sqlButton() {
  return el("button", { class: "button small", type: "button", id: "show-sql", "aria-expanded": "false", "aria-controls": "sql", onclick: toggleSql }, "SQL");
}

function toggleSql() {
  const panel = byId("sql");
  panel.hidden = !panel.hidden;
  byId("show-sql").setAttribute("aria-expanded", !panel.hidden);
}

function sqlPanel(runs) {
  const blocks = Object.entries(runs).map(([name, { sql }]) => {
    // Hundreds of numbers are copied, but nobody wants to look at them.
    const code = el("code", {}, sql.replace(/\[(-?[\d.e-]+, ){8,}[^\]]*\]/g, (vector) => `[${vector.slice(1).split(", ").slice(0, 3).join(", ")}, … ]`));
    const copy = el("button", { class: "button small", type: "button", onclick: () => copyText(sql, copy) }, "Copy");
    return el("div", { class: "sql" }, el("header", {}, el("h3", {}, METHODS[name]), copy), el("pre", {}, code));
  });
  return el("div", { id: "sql", hidden: true }, blocks);
}

async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Where the page is not on https or localhost there is no clipboard but this.
    const field = el("textarea", { class: "visually-hidden" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function shown(value, type) {
  if (type === "String") return value && value !== "?" ? value : "unknown";
  if (type === "Float32") return Number.isFinite(value) ? value.toFixed(3) : "unknown";
  return value ? number(value) : "unknown";
}

function card(hit) {
  const isSafe = SAFE_FLAGS.includes(hit.NSFW);
  const facts = [
    ["distance", hit.distance.toFixed(3)],
    ["size", hit.width && hit.height ? `${hit.width} × ${hit.height}` : "unknown"],
    ...columns.filter(({ name }) => !OWN_PLACE.includes(name)).map(({ name, type }) => [name.toLowerCase(), shown(hit[name], type)]),
  ];
  const marks = [];
  if (hit.NSFW) marks.push(el("span", { class: isSafe ? "flag" : "flag unsafe" }, isSafe ? "safe" : hit.NSFW.toLowerCase()));
  if (hit.in_exact === false) marks.push(el("span", { class: "flag miss", title: "Brute force has a nearer row" }, "not in brute force"));
  return el(
    "article",
    { class: isSafe ? "hit" : "hit unsafe" },
    el("div", { class: "picture" }, image(hit)),
    el("div", { class: "text" },
      el("p", { class: hit.caption ? "caption" : "caption none", title: hit.caption }, hit.caption || "no caption"),
      el("dl", { class: "facts" }, facts.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)])),
      el("p", { class: "marks" }, marks),
      el("footer", {}, el("button", { class: "button small", type: "button", onclick: () => more(hit) }, "More like this"), el("span", { class: "push" }), link(hit.url, "address"))),
  );
}

function image(hit) {
  if (!hit.src) return gone();
  const node = el("img", { loading: "lazy", decoding: "async", referrerpolicy: "no-referrer", alt: hit.caption || "picture without caption" });
  node.addEventListener("error", () => node.replaceWith(gone()), { once: true });
  node.src = hit.src;
  return node;
}

const gone = () => el("p", { class: "gone" }, "This picture is no longer there.");

function more(hit) {
  setPicture(null);
  byId("words").value = "";
  like = hit.id;
  const thumbnail = image(hit);
  byId("chosen").replaceChildren(thumbnail, el("figcaption", {}, `like row ${hit.id}`), clear());
  byId("chosen").hidden = false;
  window.scrollTo({ top: 0 });
  search();
}

function setPicture(file) {
  if (picture) URL.revokeObjectURL(byId("chosen").querySelector("img")?.src);
  like = null;
  picture = file;
  byId("picture").value = "";
  byId("chosen").hidden = !file;
  byId("chosen").replaceChildren();
  if (!file) return;
  byId("words").value = "";
  byId("chosen").append(el("img", { src: URL.createObjectURL(file), alt: "" }), el("figcaption", {}, file.name || "picture"), clear());
}

const clear = () => el("button", { class: "button quiet small", type: "button", "aria-label": "Search by words again", onclick: () => { setPicture(null); byId("words").focus(); } }, "✕");

function takePicture(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) return showError(`${file.name} is no picture.`);
  if (file.size > maxPictureBytes) return showError(`${file.name} is larger than ${maxPictureBytes >> 20} MiB.`);
  setPicture(file);
  search();
}

function fillFrom(params) {
  for (const name of FIELDS) {
    if (params.has(name)) byId(name).value = params.getAll(name).join(",");
  }
  byId("distinct").checked = params.get("distinct") === "true";
  const chosen = document.querySelector(`[name=method][value="${CSS.escape(params.get("method") ?? "index")}"]`);
  if (chosen) chosen.checked = true;
  if (/^\d+$/.test(params.get("like") ?? "")) {
    like = params.get("like");
    byId("chosen").replaceChildren(el("figcaption", {}, `like row ${like}`), clear());
    byId("chosen").hidden = false;
  }
}

leaveFrame();
const asked = new URLSearchParams(window.location.search);
byId("table").append(...tables.map((one) => el("option", { value: one.table, selected: one.table === asked.get("table") }, one.table)));
byId("form").hidden = byId("choice").hidden = !tables.length;
if (error) showError(error);
else if (!tables.length) byId("empty").hidden = false;
else {
  offerVectors();
  fillFrom(asked);
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  byId("form").addEventListener("change", (event) => {
    if (!["words", "picture", "unblurred"].includes(event.target.id)) search();
  });
  byId("table").addEventListener("change", () => {
    offerVectors();
    search();
  });
  byId("words").addEventListener("input", () => (picture || like !== null) && setPicture(null));
  byId("picture").addEventListener("change", (event) => takePicture(event.target.files[0]));
  byId("unblurred").addEventListener("change", (event) => byId("results").classList.toggle("unblurred", event.target.checked));
  document.addEventListener("paste", (event) => event.clipboardData.files.length && takePicture(event.clipboardData.files[0]));
  let depth = 0;
  const hover = (change) => {
    depth += change;
    byId("drop").hidden = depth <= 0;
  };
  document.addEventListener("dragenter", (event) => event.dataTransfer.types.includes("Files") && hover(1));
  document.addEventListener("dragleave", () => depth > 0 && hover(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    hover(-depth);
    takePicture(event.dataTransfer.files[0]);
  });
  // Chosen before this script was here.
  const [early] = byId("picture").files;
  if (early) takePicture(early);
  else search();
}
