// Elements and numbers. Text becomes text nodes only, so nothing from the data is ever read as HTML.

/** Return an element; `props` are attributes, or listeners when named on…; falsy children are left out. */
export function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child || child === 0));
  return node;
}

export const byId = (id) => document.getElementById(id);

export const pageData = () => JSON.parse(byId("data").textContent);

/** Fetch JSON of our own. Throws an Error with a text for people. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options, headers: { "X-Laion-Request": "1", ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("Airflow does not answer.");
  }
  if (answer.ok) return answer.json();
  if (answer.status === 401) throw new Error("You are logged out. Reload Airflow to log in again.");
  if (answer.status === 403) throw new Error("You may not do this.");
  const body = await answer.json().catch(() => ({}));
  const detail = Array.isArray(body.detail) ? body.detail.map((part) => part.msg).join("; ") : body.detail;
  throw new Error(body.error || detail || `Airflow answers ${answer.status}.`);
}

const whole = new Intl.NumberFormat("en");
export const number = (value) => whole.format(value);

/** 1234567 → "1.23 M" */
export function short(value) {
  for (const [size, name] of [[1e9, " bn"], [1e6, " M"], [1e4, " k"]]) {
    if (value >= size) return digits(value / (name === " k" ? 1e3 : size)) + name;
  }
  return whole.format(Math.round(value));
}

/** 1.5e12 → "1.50 TB" */
export function bytes(value) {
  for (const [size, name] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= size) return `${digits(value / size)} ${name}`;
  }
  return `${value} B`;
}

const digits = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

/** 3725 → "1 h 2 min" */
export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.round(hours / 24)} days`;
}

/** "0-9,12" → Set of numbers, or null when it cannot be read. */
export function parseShards(text) {
  const numbers = new Set();
  for (const part of text.split(",")) {
    const match = /^\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*$/.exec(part);
    if (!match) return null;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (last < first) return null;
    for (let shard = first; shard <= last; shard += 1) numbers.add(shard);
  }
  return numbers;
}

/** Sorted numbers → "0-9,12" */
export function formatShards(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const parts = [];
  for (let i = 0; i < sorted.length; ) {
    let end = i;
    while (sorted[end + 1] === sorted[end] + 1) end += 1;
    parts.push(end === i ? `${sorted[i]}` : `${sorted[i]}-${sorted[end]}`);
    i = end + 1;
  }
  return parts.join(",");
}

export const when = (ms) => new Date(ms).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** A link that leaves the page, or only its text where the address is no web address. */
export function link(address, ...children) {
  const safe = /^https?:\/\//i.test(address);
  return safe ? el("a", { href: address, target: "_blank", rel: "noopener noreferrer", referrerpolicy: "no-referrer" }, children) : el("span", {}, children);
}
