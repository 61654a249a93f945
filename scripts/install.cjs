// npm's install script: nothing to do where a prebuilt binary or a build loads, else build the addon.
const path = require("node:path");

const root = path.resolve(__dirname, "..");

function loads() {
  try {
    require(require("node-gyp-build").resolve(root));
    return true;
  } catch {
    return false;
  }
}

if (!loads()) {
  const { buildAddon } = require("./build-addon.cjs");
  const status = buildAddon();
  if (status !== 0) {
    console.error(
      process.platform === "win32"
        ? `rlsd has no prebuilt binary for Windows on ${process.arch}. In WSL it is Linux's rlsd.`
        : "rlsd could not be built. It needs a C++17 compiler, make and python3; then: npm rebuild rlsd",
    );
    process.exit(status ?? 1);
  }
}
