// The playground. State lives in `shown` and in the form; results are drawn anew from each reply.
import { $, along, apiKey, call, copies, count, el, fixed, plural, roving, shorten, themeToggle } from "/ui/api.js";
import { heatMap, scatter } from "/ui/charts.js";
import { cosine, cosines, pca } from "/ui/math.js";
import { snippets } from "/ui/snippets.js";

const MAX_TEXTS = 200;
const MAX_CHARACTERS = 200_000;
const HEAT_TEXTS = 40;
const TOKENS_SHOWN = 4000;
const REFRESH_MS = 5000;

const EXAMPLES = [
  "My cat sleeps on the sofa all day.",
  "The kitten is playing with a ball of wool.",
  "Our dog chases the neighbour's cat.",
  "The central bank raised interest rates again.",
  "Higher interest rates make mortgages expensive.",
  "Investors moved their money into government bonds.",
  "Knead the dough until it is smooth and elastic.",
  "Bake the bread until the crust is golden.",
  "Mix flour, water, salt and a little yeast.",
];
const LONG = "A text longer than the model's limit is cut at its end, and what is cut has no part in the vector. ";

const shown = { limit: 512, info: null, vectors: null, documents: null };

// --- What is running

function facts(list, rows) {
  list.replaceChildren(...rows.filter(([, value]) => value !== undefined).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, typeof value === "number" ? count(value) : value))));
}

function duration(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

function showPhase(word, name) {
  $("phase").textContent = word;
  $("phase").className = `phase ${name}`;
}

async function showRunning(ask) {
  const status = await call("GET", "/", undefined, { ask });
  shown.info ??= await call("GET", "/model_info", undefined, { ask });
  const { info } = shown;
  shown.limit = status.max_tokens;
  $("running-title").textContent = status.model;
  document.title = `${info.id} · cortex-embed`;
  facts($("facts"), [
    ["Dimensions", status.dimensions], ["Max tokens", status.max_tokens],
    ["Precision", info.precision], ["Pooling", info.pooling],
    ["Licence", info.licence], ["Fingerprint", info.fingerprint],
  ]);
  showPhase(status.status === "ok" ? "ready" : status.status, status.status);
  showPrefix();
  showSnippets();
  return status.status;
}

async function showLoad() {
  let stats;
  try {
    stats = await call("GET", "/stats", undefined, { ask: false });
  } catch (error) {
    $("load").hidden = true;
    // A server without /stats has nothing to show; anything else is a server in trouble.
    if (error.status !== 404) throw error;
    return;
  }
  $("load").hidden = false;
  facts($("load"), [
    ["Uptime", duration(stats.uptime)], ["Requests", stats.requests], ["Texts", stats.texts],
    ["Tokens", stats.tokens], ["Truncated", stats.truncated], ["In flight", stats.in_flight],
    ["Queued tokens", stats.queued_tokens],
    ["Memory", stats.rss ? `${count(Math.round(stats.rss / 2 ** 20))} MiB` : undefined],
  ]);
}

let timer;

/** Now, and again while somebody looks. */
async function refresh(ask = false) {
  clearTimeout(timer);
  let again = REFRESH_MS;
  try {
    if ((await showRunning(ask)) === "loading") again = 500;
    await showLoad();
  } catch (error) {
    shown.info = null; // the next server may serve another model
    if (error.status === 401) {
      showPhase("API key needed", "locked");
      again = 0; // "Embed" asks for it again
    } else {
      showPhase(error.status ? shorten(error.message, 80) : "not answering", "failed");
    }
  }
  clearTimeout(timer);
  if (again && !document.hidden) timer = setTimeout(refresh, again);
}

function showPrefix() {
  const prefix = shown.info?.[`${intent() || "no"}_prefix`];
  if (!intent()) $("prefix").textContent = "the text as it is";
  else $("prefix").textContent = prefix ? `prefix: “${prefix}”` : "this model has no prefix for it";
}

// --- The texts

const intent = () => document.querySelector("input[name=intent]:checked").value;

/** {texts, notices}: what is embedded, and in words what is not. */
function readTexts() {
  const lines = $("texts").value.split(/\r?\n/).filter((line) => line.trim());
  const notices = [];
  let room = MAX_CHARACTERS;
  const texts = lines.slice(0, MAX_TEXTS).filter((text) => (room -= text.length) >= 0);
  if (texts.length < lines.length) {
    notices.push(`This page takes ${MAX_TEXTS} texts of ${count(MAX_CHARACTERS)} characters in all: the first ${texts.length} of ${plural(lines.length, "text")} are used. The API takes more.`);
  }
  return { texts, notices };
}

const showCount = () => ($("count").textContent = plural(readTexts().texts.length, "text"));

function say(id, text) {
  $(id).textContent = text;
  $(id).hidden = !text;
}

function notice(lines) {
  $("notices").replaceChildren(...lines.map((line) => el("li", {}, line)));
  $("notices").hidden = !lines.length;
}

/** The value, or the words of the error. */
const settled = (promise) =>
  promise.then((value) => ({ value }), (error) => ({ error: error.message }));

async function embed() {
  const { texts, notices } = readTexts();
  notice(notices);
  if (!texts.length) {
    say("message", notices.length ? "" : "Type at least one text, one a line.");
    $("texts").focus();
    return;
  }
  say("message", "");
  $("embed").disabled = true;
  $("results").setAttribute("aria-busy", "true");
  const began = performance.now();
  const mode = intent();
  const prompt = mode ? { prompt_name: mode } : {};
  const [reply, tokens] = await Promise.all([
    settled(call("POST", "/embed", mode ? { texts, mode } : { texts })),
    settled(call("POST", "/tokenize", { inputs: texts, add_special_tokens: true, ...prompt })),
  ]);
  const ms = Math.round(performance.now() - began);
  let summary = "";
  $("embed").disabled = false;
  $("results").removeAttribute("aria-busy");
  say("message", reply.error ?? "");
  $("results").hidden = !reply.value && !tokens.value;
  $("vectors").hidden = !reply.value;
  showTokens(texts, tokens, reply.value?.truncated ?? [], notices);
  shown.vectors = reply.value ? { texts, vectors: reply.value.embeddings } : null;
  if (reply.value) {
    const { usage, dimensions } = reply.value;
    summary = `${plural(texts.length, "text")} · ${plural(usage.tokens, "token")} · ${dimensions} dimensions · ${ms} ms`;
    showSimilarity(notices);
    showMap();
    await search();
  }
  say("summary", summary);
  notice(notices);
  refresh();
}

// --- Tokens

function showTokens(texts, tokens, truncated, notices) {
  if (!tokens.value) {
    $("tokens").replaceChildren(el("p", { className: "error" }, `No tokens to show: ${tokens.error}`));
    return;
  }
  let room = TOKENS_SHOWN;
  const rows = [];
  tokens.value.forEach((all, i) => {
    if (room <= 0) return;
    const used = truncated.find((one) => one.index === i)?.used ?? Math.min(all.length, shown.limit);
    rows.push(tokenRow(all, used, room));
    room -= all.length;
  });
  const total = tokens.value.reduce((sum, all) => sum + all.length, 0);
  if (total > TOKENS_SHOWN) {
    notices.push(`The list of tokens ends at ${count(TOKENS_SHOWN)} of ${count(total)}.`);
  }
  if (truncated.length) notices.push(`${plural(truncated.length, "text")} truncated: see the tokens struck out below.`);
  $("tokens").replaceChildren(...rows);
}

/** One text: its tokens; those that the model does not read are struck out. */
function tokenRow(tokens, used, room) {
  const head = tokens.findIndex((token) => !token.special);
  const tail = tokens.length - 1 - tokens.findLastIndex((token) => !token.special);
  const kept = tokens.length - tail - Math.max(0, tokens.length - used);
  const flow = el("span", { className: "flow" });
  let before = null;
  tokens.slice(0, room).forEach((token, k) => {
    const cut = k >= Math.max(head, kept) && k < tokens.length - tail;
    const joined = before !== null && token.start !== null && token.start === before;
    if (k && !joined) flow.append(" ");
    const style = token.special ? "special" : `hue${k % 5}`;
    flow.append(el(cut ? "s" : "span", {
      className: `token ${cut ? "cut" : style}`, title: `id ${token.id}${cut ? ", not read" : ""}`,
    }, token.text));
    before = token.stop;
  });
  const note = tokens.length > used
    ? el("strong", { className: "truncated" }, `truncated: ${count(used)} of ${plural(tokens.length, "token")} are used`)
    : el("span", { className: "muted" }, plural(tokens.length, "token"));
  return el("li", {}, flow, el("span", { className: "note" }, note));
}

// --- Similarity, map, search

function showSimilarity(notices) {
  const texts = shown.vectors.texts.slice(0, HEAT_TEXTS);
  if (texts.length < shown.vectors.texts.length) {
    notices.push(`The heat map shows the first ${HEAT_TEXTS} of ${shown.vectors.texts.length} texts.`);
  }
  const lowest = heatMap($("heat"), $("heat-readout"), texts, cosines(shown.vectors.vectors.slice(0, HEAT_TEXTS)));
  $("heat-low").textContent = fixed(lowest, 2);
}

function showMap() {
  const { texts, vectors } = shown.vectors;
  const { points, kept } = pca(vectors);
  $("map-kept").textContent = `PCA: two axes hold ${Math.round(kept * 100)} % of the variance`;
  shown.points = points;
  scatter($("map"), $("map-readout"), texts, points);
}

async function search(event) {
  event?.preventDefault();
  // What is searched is what the box above holds now.
  const current = readTexts().texts;
  if (event && current.join("\n") !== shown.vectors?.texts.join("\n")) return embed();
  const query = $("query").value.trim();
  say("search-message", "");
  if (!query || !shown.vectors) {
    $("ranking").replaceChildren();
    if (event && !query) say("search-message", "Type a query first.");
    return;
  }
  const { texts } = shown.vectors;
  try {
    if (shown.documents?.texts !== texts) {
      const reply = await call("POST", "/embed", { texts, mode: "document" });
      shown.documents = { texts, vectors: reply.embeddings };
    }
    const { embeddings } = await call("POST", "/embed", { texts: [query], mode: "query" });
    rank(texts, shown.documents.vectors.map((vector) => cosine(vector, embeddings[0])));
  } catch (error) {
    $("ranking").replaceChildren();
    say("search-message", error.message);
  }
}

function rank(texts, scores) {
  const order = texts.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
  $("ranked").textContent = `${plural(texts.length, "text")} ranked. Best: ${shorten(texts[order[0]], 100)}`;
  $("ranking").replaceChildren(...order.map((i) => {
    const bar = el("span", { className: "score-bar", "aria-hidden": "true" });
    bar.style.setProperty("--score", `${Math.max(0, scores[i]) * 100}%`);
    return el("li", {}, el("span", { className: "ranked" }, texts[i]), bar,
      el("span", { className: "score" }, fixed(scores[i], 4)));
  }));
}

// --- Code

let language = 0;

function showSnippets() {
  const all = snippets(location.origin, shown.info.id, Boolean(apiKey()));
  const tabs = all.map(([name], i) => {
    const tab = el("button", { type: "button", role: "tab", id: `tab-${i}`, "aria-controls": "code" }, name);
    tab.addEventListener("focus", () => showCode(all, i));
    tab.addEventListener("click", () => showCode(all, i));
    return tab;
  });
  // Drawn once and again when the model or the key changes: a refresh must not take the focus.
  const now = JSON.stringify(all);
  if ($("tabs").dataset.now === now) return;
  $("tabs").dataset.now = now;
  $("tabs").replaceChildren(...tabs);
  showCode(all, language);
}

function showCode(all, chosen) {
  language = chosen;
  [...$("tabs").children].forEach((tab, i) => {
    tab.setAttribute("aria-selected", String(i === chosen));
    tab.tabIndex = i === chosen ? 0 : -1;
  });
  $("code").firstElementChild.textContent = all[chosen][1];
  $("code").setAttribute("aria-labelledby", `tab-${chosen}`);
}

// --- Wiring

function fill(lines) {
  $("texts").value = lines.join("\n");
  showCount();
}

themeToggle($("theme"));
copies($("copy"), () => $("code").textContent);
roving($("tabs"), () => [...$("tabs").children], along);
$("embed").addEventListener("click", embed);
$("search").addEventListener("submit", search);
$("texts").addEventListener("input", showCount);
$("examples").addEventListener("click", () => fill(EXAMPLES));
$("long").addEventListener("click", () =>
  fill([...$("texts").value.split("\n").filter(Boolean), LONG.repeat(Math.ceil(shown.limit / 16)).trim()]));
for (const radio of document.querySelectorAll("input[name=intent]")) radio.addEventListener("change", showPrefix);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  if (!$("embed").disabled) embed();
});
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
new ResizeObserver(() => {
  if (shown.vectors) scatter($("map"), $("map-readout"), shown.vectors.texts, shown.points);
}).observe($("map"));
if (/Mac|iPhone|iPad/.test(navigator.platform)) document.querySelector("#embed kbd").textContent = "⌘ ↵";
fill(EXAMPLES);
refresh(true);
