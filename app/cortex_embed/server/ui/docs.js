// The API page: draws /openapi.json, and sends its examples.
import { $, apiKey, call, copies, count, el, send, themeToggle } from "/ui/api.js";

const SHOWN_CHARACTERS = 4000;
const METHODS = ["get", "post", "put", "patch", "delete"];
const DEEPEST = 3;
const JSON_TYPE = "application/json";

let document_ = {};

/** What `node` refers to, and the name of it. */
function resolve(node) {
  const name = node?.$ref?.split("/").pop();
  if (!node?.$ref) return { schema: node ?? {}, name: node?.title };
  let at = document_;
  for (const part of node.$ref.slice(2).split("/")) at = at[part];
  return { schema: at, name };
}

/** A type in words: `string[] | null`. */
function typeOf(node, depth = 0) {
  const { schema, name } = resolve(node);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return [...new Set(options.map((one) => typeOf(one, depth)))].join(" | ");
  const types = [schema.type ?? (schema.properties ? "object" : "any")].flat();
  return types.map((type) => {
    if (type === "object") return name ?? "object";
    if (type !== "array") return type;
    if (!schema.items || depth > DEEPEST) return "array";
    const of = typeOf(schema.items, depth + 1);
    return of.includes(" | ") ? `(${of})[]` : `${of}[]`;
  }).join(" | ");
}

/** The objects in a value: of a union, of a list. */
function objects(node) {
  const { schema, name } = resolve(node);
  if (schema.properties) return [{ schema, name }];
  if (schema.items) return objects(schema.items);
  return (schema.anyOf ?? schema.oneOf ?? []).flatMap(objects);
}

/** A row for each field of an object, and of the objects in it. */
function fieldsOf(schema, before = "", depth = 0) {
  const isRequired = ([name]) => schema.required?.includes(name) ?? false;
  const all = Object.entries(schema.properties ?? {}).sort((a, b) => isRequired(b) - isRequired(a));
  return all.flatMap(([name, property]) => {
    const { schema: inner } = resolve(property);
    const path = before + name;
    const description = property.description ?? inner.description ??
      (inner.anyOf ?? []).map((one) => one.description).find(Boolean) ?? "";
    const fallback = property.default ?? inner.default;
    const noted = fallback === undefined || fallback === null ? description
      : `${description} Default: ${JSON.stringify(fallback)}.`.trim();
    const required = isRequired([name]) ? el("span", { className: "required" }, " required") : "";
    const row = [[path, required], typeOf(property), noted];
    if (depth >= DEEPEST) return [row];
    return [row, ...objects(property).flatMap((one) => fieldsOf(one.schema, `${path}.`, depth + 1))];
  });
}

function table(label, heads, rows) {
  return el("table", { className: "fields", "aria-label": label },
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map(([first, ...rest]) =>
      el("tr", {}, el("th", { scope: "row" }, ...[first].flat()), ...rest.map((one) => el("td", {}, one))))));
}

function requestTables(content) {
  const all = objects(content?.schema);
  return all.flatMap(({ schema, name }) => [
    el("h3", {}, all.length > 1 ? `Body: ${name}` : "Body"),
    schema.description ? el("p", { className: "muted" }, schema.description) : null,
    table(`Fields of ${name ?? "the body"}`, ["Field", "Type", "Description"], fieldsOf(schema)),
  ]);
}

function responseTable(operation) {
  const rows = Object.entries(operation.responses ?? {}).map(([status, given]) => {
    const response = resolve(given).schema;
    const types = Object.entries(response.content ?? {}).map(([media, { schema }]) =>
      media === JSON_TYPE ? typeOf(schema) : `${media} ${schema ? typeOf(schema) : ""}`.trim());
    return [status, types.join(", "), response.description ?? ""];
  });
  return table("Responses", ["Status", "Type", "Description"], rows);
}

function exampleOf(content) {
  return content.example ?? Object.values(content.examples ?? {})[0]?.value ?? {};
}

/** JSON with one line for a list of numbers or of a few words. */
function pretty(value) {
  return JSON.stringify(value, null, 2).replace(/\[\n\s*([^[\]{}]*?)\n\s*\]/g, (whole, row) =>
    row.length < 80 || /^[-\d.e+,\s]+$/.test(row) ? `[${row.replace(/,\n\s*/g, ", ")}]` : whole);
}

const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

function curl(method, path, body) {
  const verb = method === (body === undefined ? "GET" : "POST") ? "" : `-X ${method} `;
  const parts = [`curl ${verb}${quoted(location.origin + path)}`];
  if (apiKey()) parts.push("-H 'Authorization: Bearer YOUR_API_KEY'");
  if (body !== undefined) parts.push("-H 'Content-Type: application/json'", `-d ${quoted(body)}`);
  return parts.join(" \\\n  ");
}

/** The part of an operation that sends: path parameters, body, curl line, reply. */
function tryOut(method, path, operation, id) {
  const inputs = (operation.parameters ?? []).map((one) => resolve(one).schema)
    .filter((one) => one.in === "path" || one.in === "query")
    .map((one) => ({ ...one, input: el("input", { type: "text", id: `${id}-${one.name}`, value: String(one.example ?? "") }) }));
  const content = operation.requestBody && resolve(operation.requestBody).schema.content?.[JSON_TYPE];
  const body = content && el("textarea", { id: `${id}-body`, spellcheck: false, rows: 1, value: pretty(exampleOf(content)) });
  if (body) body.rows = Math.min(16, body.value.split("\n").length);

  const target = () => {
    let at = path;
    const query = new URLSearchParams();
    for (const { name, in: where, input } of inputs) {
      // Model ids hold slashes, which are part of these paths.
      if (where === "path") at = at.replace(`{${name}}`, encodeURIComponent(input.value).replaceAll("%2F", "/"));
      else if (input.value) query.set(name, input.value);
    }
    return query.size ? `${at}?${query}` : at;
  };
  const line = el("code");
  const drawLine = () => (line.textContent = curl(method, target(), body?.value));
  const status = el("span", { className: "muted", role: "status" });
  const reply = el("pre", { className: "reply", tabIndex: 0, hidden: true, "aria-label": "Reply" });
  const button = el("button", { type: "button", className: "button primary" }, "Send");
  const copy = el("button", { type: "button", className: "button quiet" }, "Copy");

  const go = async () => {
    button.disabled = true;
    status.textContent = "sending…";
    try {
      const got = await send(method, target(), { body: body?.value, accept: "application/json, */*;q=0.5" });
      status.className = got.status < 400 ? "muted" : "error";
      status.textContent = `${got.status} · ${Math.round(got.seconds * 1000)} ms · ${count(got.text.length)} characters`;
      reply.textContent = shortened(got.text);
      reply.hidden = false;
    } catch (error) {
      status.className = "error";
      status.textContent = error.message;
      reply.hidden = true;
    }
    button.disabled = false;
    drawLine();
  };
  button.addEventListener("click", go);
  for (const one of [body, ...inputs.map(({ input }) => input)].filter(Boolean)) {
    one.addEventListener("input", drawLine);
    one.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      go();
    });
  }
  copies(copy, () => line.textContent);
  drawLine();
  return [
    el("h3", {}, "Try it"),
    ...inputs.map(({ name, description, input }) => el("div", {},
      el("label", { htmlFor: input.id }, `${name} `, el("span", { className: "muted" }, description ?? "")), input)),
    body ? el("label", { htmlFor: body.id, className: "hidden" }, "Body to send") : null,
    body ?? null,
    el("div", { className: "bar" }, button, status),
    reply,
    el("div", { className: "bar" }, el("h3", {}, "curl"), el("span", { className: "spacer" }), copy),
    el("pre", { tabIndex: 0 }, line),
  ];
}

function shortened(text) {
  let shown = text;
  try {
    shown = pretty(JSON.parse(text));
  } catch {
    // Not JSON: shown as it came.
  }
  if (shown.length <= SHOWN_CHARACTERS) return shown || "(empty)";
  return `${shown.slice(0, SHOWN_CHARACTERS)}\n… ${count(shown.length - SHOWN_CHARACTERS)} more characters, not shown`;
}

/** An operation; its inside is drawn when it is first opened. */
function operationBlock(method, path, operation) {
  const id = operation.operationId ?? `${method}-${path}`;
  const block = el("details", { className: "operation", id },
    el("summary", {},
      el("span", { className: `method ${method}` }, method.toUpperCase()),
      el("span", { className: "path" }, path),
      el("span", { className: "muted" }, operation.summary ?? "")));
  block.addEventListener("toggle", () => {
    if (!block.open || block.children.length > 1) return;
    const content = operation.requestBody && resolve(operation.requestBody).schema.content?.[JSON_TYPE];
    const nodes = [
      operation.description ? el("p", {}, operation.description) : null,
      ...requestTables(content),
      ...tryOut(method.toUpperCase(), path, operation, id),
      el("h3", {}, "Responses"),
      responseTable(operation),
    ];
    block.append(el("div", { className: "inside" }, ...nodes.filter(Boolean)));
  });
  return block;
}

function draw() {
  const { info, paths } = document_;
  $("title").textContent = info.title;
  $("about").textContent = `Version ${info.version}. ${info.summary ?? info.description ?? ""}`;
  const groups = new Map((document_.tags ?? []).map(({ name }) => [name, []]));
  for (const [path, item] of Object.entries(paths)) {
    for (const method of METHODS.filter((one) => item[one])) {
      const tag = item[method].tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operationBlock(method, path, item[method]));
    }
  }
  const used = [...groups].filter(([, blocks]) => blocks.length);
  $("toc").replaceChildren(...used.map(([tag]) => el("a", { href: `#tag-${tag}` }, tag)));
  $("operations").replaceChildren(...used.map(([tag, blocks]) =>
    el("section", { "aria-labelledby": `tag-${tag}` }, el("h2", { id: `tag-${tag}` }, tag),
      el("div", { className: "group" }, ...blocks))));
}

function openLinked() {
  const linked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (linked?.matches("details")) linked.open = true;
  linked?.scrollIntoView();
}

themeToggle($("theme"));
try {
  document_ = await call("GET", "/openapi.json");
  draw();
  openLinked();
} catch (error) {
  $("message").textContent = error instanceof Error ? error.message : String(error);
  $("message").hidden = false;
}
window.addEventListener("hashchange", openLinked);
