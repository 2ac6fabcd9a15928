// What both pages share: elements, requests with a key, copying, the theme.
// Texts and replies reach the document by textContent only, never as markup.

export const $ = (id) => document.getElementById(id);

/** An element: `el("p", {className: "note"}, "text", child)`. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export const count = (n) => n.toLocaleString("en");

export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

/** `value` with so many digits, and no minus before a zero. */
export const fixed = (value, digits) => value.toFixed(digits).replace(/^-(0\.0+)$/, "$1");

export const shorten = (text, length) => {
  const characters = [...text];
  return characters.length > length ? characters.slice(0, length - 1).join("") + "…" : text;
};

// --- The key: in this tab only

const KEY = "cortex-embed-key";
let inMemory = "";

export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? inMemory;
  } catch {
    return inMemory;
  }
}

function remember(key) {
  inMemory = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // Storage is forbidden: the key lasts until the page is left.
  }
}

let asking = null;

/** One dialog, however many requests were refused. Resolves to whether a key was given. */
function askForKey(refused) {
  asking ??= new Promise((resolve) => {
    const input = el("input", {
      type: "password", id: "api-key", autocomplete: "off", spellcheck: false, required: true,
    });
    const said = refused ? "The server refused that key." : "This server asks for an API key.";
    const cancel = el("button", { type: "button", className: "button" }, "Cancel");
    const form = el("form", {},
      el("h2", { id: "key-title" }, "API key"),
      el("p", { className: refused ? "error" : "muted", role: "status" }, said),
      el("label", { htmlFor: "api-key" }, "Key"),
      input,
      el("p", { className: "hint" }, "Kept until this tab is closed, and sent to this server only."),
      el("div", { className: "bar" }, cancel,
        el("button", { type: "submit", className: "button primary" }, "Use this key")));
    const dialog = el("dialog", { "aria-labelledby": "key-title" }, form);
    let given = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      given = true;
      remember(input.value.trim());
      dialog.close();
    });
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      asking = null;
      resolve(given);
    });
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
  return asking;
}

// --- Requests

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server's own words in the body of an error, whatever the dialect. */
function words(status, text) {
  try {
    const body = JSON.parse(text);
    const said = body.error?.message ?? body.error ?? body.message ?? body.detail;
    if (typeof said === "string" && said) return said;
  } catch {
    // Not JSON: shown as it is.
  }
  return `The server answered ${status}. ${shorten(text.trim(), 300)}`.trim();
}

/** A reply as it came: {status, headers, text, seconds}. A 401 asks for the key first. */
export async function send(method, path, { body, ask = true, accept = "application/json" } = {}) {
  const headers = { Accept: accept };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  for (;;) {
    const key = apiKey();
    if (key) headers.Authorization = `Bearer ${key}`;
    const began = performance.now();
    let reply, text;
    try {
      reply = await fetch(path, { method, headers, body, cache: "no-store" });
      text = await reply.text();
    } catch {
      throw new ApiError(0, "The server does not answer. Is it still running?");
    }
    const seconds = (performance.now() - began) / 1000;
    if (reply.status === 401 && ask) {
      // Another request may have been given a newer key while this one was on its way.
      if (apiKey() !== key || (await askForKey(Boolean(key)))) continue;
    }
    return { status: reply.status, headers: reply.headers, text, seconds };
  }
}

/** The JSON of a 200. Throws ApiError with the server's words for anything else. */
export async function call(method, path, body, options = {}) {
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const reply = await send(method, path, { ...options, body: sent });
  if (reply.status !== 200) throw new ApiError(reply.status, words(reply.status, reply.text));
  return JSON.parse(reply.text);
}

// --- Controls

/** Make `button` copy what `source()` returns. */
export function copies(button, source) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source());
      button.textContent = "Copied";
    } catch {
      // Only pages on localhost or over TLS may use the clipboard.
      button.textContent = "Select and copy by hand";
    }
    setTimeout(() => (button.textContent = label), 1600);
  });
}

/** Arrow keys walk `items()`; only the current one is a tab stop. `step` maps a key to a move. */
export function roving(container, items, step) {
  container.addEventListener("keydown", (event) => {
    const all = items();
    const at = all.indexOf(document.activeElement);
    const next = at < 0 ? null : step(event.key, at, all.length);
    if (next === null || next === undefined) return;
    event.preventDefault();
    const target = all[Math.max(0, Math.min(all.length - 1, next))];
    all[at].tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  });
}

/** Steps along a line, for `roving`. */
export const along = (key, at, length) =>
  ({ ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: length - 1 })[key];

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** The button that changes between light and dark, and remembers. */
export function themeToggle(button) {
  const label = () => button.setAttribute("aria-label", `Use the ${isDark() ? "light" : "dark"} theme`);
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // It holds for this page then.
    }
    label();
  });
  label();
}
