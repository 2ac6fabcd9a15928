"use strict";
// Where the program is: the one-file executable in the package of this platform, which npm picks
// among our optional dependencies by `os`, `cpu` and `libc`. It must never download anything.

const fs = require("node:fs");
const { optionalDependencies } = require("./package.json");

const VARIABLE = "CORTEX_EMBED_BINARY";
const SYSTEMS = { linux: "linux", darwin: "macos", win32: "windows" };

/**
 * Path of the executable: that of CORTEX_EMBED_BINARY, or the platform package's.
 * Throws an Error that names the way out.
 */
function binaryPath() {
  const given = process.env[VARIABLE];
  if (given) {
    if (fs.statSync(given, { throwIfNoEntry: false })?.isFile()) return given;
    throw new Error(`${VARIABLE} is ${given}, which is no file. Give the executable's path.`);
  }
  const name = `@cortex-embed/${SYSTEMS[process.platform] ?? process.platform}-${process.arch}`;
  const file = process.platform === "win32" ? "cortex-embed.exe" : "cortex-embed";
  let found;
  try {
    found = require.resolve(`${name}/bin/${file}`);
  } catch {
    throw new Error(why(name));
  }
  // Electron: no program can be started from inside an asar archive, and electron-builder lays
  // what is in `asarUnpack` beside it. Its patched `fs` makes both look alike.
  return found.replace(/\bapp\.asar(?=[\\/])/, "app.asar.unpacked");
}

/** Why the package `name` cannot be found, and what to do. */
function why(name) {
  const names = Object.keys(optionalDependencies);
  const platform = `${process.platform} ${process.arch}`;
  const other = `or set ${VARIABLE}=/path to an executable of your own.`;
  if (!names.includes(name)) {
    const all = names.join(", ");
    return `cortex-embed has no package for ${platform}. There are: ${all}. Use one of these platforms, ${other}`;
  }
  if (isMusl()) {
    return `cortex-embed needs glibc, and this system has musl (Alpine?): ONNX Runtime has no build for it. Use an image with glibc (such as node:22-slim), ${other}`;
  }
  const elsewhere = names.filter((one) => one !== name && isInstalled(one));
  const reason = elsewhere.length
    ? `node_modules was made on another platform (it has ${elsewhere.join(", ")})`
    : "were optional dependencies left out (--omit=optional, --no-optional)?";
  const version = optionalDependencies[name];
  return `The package ${name}, with the executable for ${platform}, is not installed: ${reason}. Install on this platform with optional dependencies (npm install --include=optional), or by name (npm install ${name}@${version}), ${other}`;
}

function isInstalled(name) {
  try {
    return Boolean(require.resolve(`${name}/package.json`));
  } catch {
    return false;
  }
}

/** Only asked once something has failed: the report can take its time. */
function isMusl() {
  if (process.platform !== "linux" || !process.report?.getReport) return false;
  process.report.excludeNetwork = true;
  return !process.report.getReport().header.glibcVersionRuntime;
}

/** `error`, which `spawn` gave for `file`, in words that help. */
function explained(error, file) {
  const missing = error.code === "ENOENT" && fs.existsSync(file) && isMusl();
  const hint = missing ? " It needs glibc, and this system has musl." : "";
  return new Error(`${file} cannot be started: ${error.message}.${hint}`, { cause: error });
}

module.exports = { binaryPath, explained };
