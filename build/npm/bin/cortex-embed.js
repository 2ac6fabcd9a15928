#!/usr/bin/env node
"use strict";
// The command: the platform's executable in our place. Node cannot exec, so we stand between:
// what comes to us goes on, and its end is ours. It must never touch stdin or stdout itself.

const { spawn } = require("node:child_process");
const os = require("node:os");
const { binaryPath, explained } = require("../binary.js");

const FAILED = 1;
const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK"].filter(
  (name) => name in os.constants.signals,
);

function main() {
  let file;
  try {
    file = binaryPath();
  } catch (error) {
    fail(error);
    return;
  }
  // If we are killed, a server must not stay: it watches its parent's process, which is us.
  const env = { CORTEX_EMBED_PARENT_PID: String(process.pid), ...process.env };
  const child = spawn(file, process.argv.slice(2), { env, stdio: "inherit" });
  child.on("error", (error) => fail(explained(error, file)));
  for (const name of FORWARDED) process.on(name, () => isOurs(name) && child.kill(name));
  child.on("exit", (code, name) => {
    process.exitCode = code ?? 128 + os.constants.signals[name];
    if (name === null) return;
    process.removeAllListeners(name);
    process.kill(process.pid, name); // whoever waits for us sees what happened
  });
}

/**
 * Whether a signal came to us alone. Of a terminal's Ctrl-C the child has its own, on Windows
 * always, and a second one would cut it short.
 */
function isOurs(name) {
  if (process.platform === "win32") return false;
  const terminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
  return !(terminal && (name === "SIGINT" || name === "SIGQUIT"));
}

function fail(error) {
  console.error(`cortex-embed: error: ${error.message}`);
  process.exitCode = FAILED;
}

main();
