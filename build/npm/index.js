"use strict";
// cortex-embed as a sidecar of a Node program: start, ask, stop. CommonJS, whose names `import`
// finds as well: one file for both, so that there is one of everything in a process.
// It must never outlive its host: the child ends when its stdin does, however we end.

const { spawn } = require("node:child_process");
const { once } = require("node:events");
const { createInterface } = require("node:readline");
const { binaryPath, explained } = require("./binary.js");

const PROTOCOL = 1; // of `cortex-embed sidecar-schema`
const TIMEOUT = 60_000; // ms
const END_LIMIT = 10_000; // ms: an end that takes longer is forced
const LAST_WORDS = 4096; // characters of stderr that an error quotes

/** Start `cortex-embed serve --sidecar`; see index.d.ts. */
async function start(options = {}) {
  const { args = [], env, signal, timeout = TIMEOUT, stderr = "inherit" } = options;
  signal?.throwIfAborted();
  const file = options.binary ?? binaryPath();
  const child = spawn(file, ["serve", "--sidecar", ...args], {
    env,
    stdio: ["pipe", "pipe", "pipe"],
    windowsHide: true,
  });
  child.stdin.on("error", () => {}); // it has ended, which "exit" tells
  const abort = () => end(child);
  signal?.addEventListener("abort", abort, { once: true });
  child.once("exit", () => signal?.removeEventListener("abort", abort));
  const said = lastWords(child, stderr);
  try {
    const ready = await isReady(child, { file, said, signal, timeout });
    // From here on only the caller's own work keeps the caller's program alive.
    // (Bun has nothing to let go of in stdin.)
    for (const held of [child, child.stdin, child.stdout, child.stderr]) held.unref?.();
    return handle(child, ready);
  } catch (error) {
    await end(child);
    throw error;
  }
}

/** Pass stderr on, and keep its end. */
function lastWords(child, stderr) {
  let words = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    words = (words + text).slice(-LAST_WORDS);
    if (stderr === "inherit") process.stderr.write(text);
  });
  return () => words.trim();
}

/** The ready event. Rejects for whatever else comes of the start. */
function isReady(child, { file, said, signal, timeout }) {
  return new Promise((resolve, reject) => {
    let timer;
    const finish = (settle, value) => {
      clearTimeout(timer);
      settle(value);
    };
    const fail = (message, more) => finish(reject, Object.assign(new Error(message), more));
    const silent = () =>
      fail(`cortex-embed gave no sign of life for ${timeout} ms. ${said()}`.trim(), {
        code: "timeout",
      });
    // Each event winds it up again: a download may take longer than any limit.
    const wait = () => {
      clearTimeout(timer);
      if (timeout) timer = setTimeout(silent, timeout);
    };
    wait();
    child.on("error", (error) => finish(reject, explained(error, file)));
    child.on("close", (code, number) => {
      if (signal?.aborted) finish(reject, signal.reason);
      const how = number ?? `exit code ${code}`;
      fail(`cortex-embed ended with ${how}: ${said() || "no message"}`, { exitCode: code });
    });
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (signal?.aborted) return; // it is ending
      const event = parsed(line);
      if (event?.v !== PROTOCOL) {
        fail(`${file} does not speak the sidecar protocol ${PROTOCOL}; it wrote: ${line}`);
      } else if (event.event === "ready") {
        finish(resolve, event);
      } else if (event.event === "error") {
        fail(event.message, { code: event.code, exitCode: event.exit_code });
      } else {
        wait();
      }
    });
  });
}

function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** What `start` gives: the ready event's fields, and what can be done with the server. */
function handle(child, { event: _event, v: _v, ...ready }) {
  return { ...ready, child, stop: () => end(child), embed };

  async function embed(texts, { signal, ...fields } = {}) {
    if (ready.uds) throw new Error(`embed() needs a port; this server listens on ${ready.uds}.`);
    let reply;
    try {
      reply = await fetch(`${ready.url}/embed`, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          ...(ready.token && { Authorization: `Bearer ${ready.token}` }),
        },
        body: JSON.stringify({ texts, ...fields }),
        signal,
      });
    } catch (cause) {
      if (!hasEnded(child)) throw cause;
      throw new Error("cortex-embed has ended; start it again.", { cause });
    }
    const body = await reply.json();
    if (reply.ok) return body;
    const { error, code, param } = body;
    throw Object.assign(new Error(error), { status: reply.status, code, param });
  }
}

function hasEnded(child) {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}

/** End the server by the end of its stdin, which works on every system; by force if it hangs. */
async function end(child) {
  if (hasEnded(child)) return;
  child.stdin.end();
  // It keeps the caller's program alive too, which is waiting for us.
  const timer = setTimeout(() => child.kill("SIGKILL"), END_LIMIT);
  await once(child, "exit");
  clearTimeout(timer);
}

module.exports = { binaryPath, start };
