// Calls the addon's functions as lib never would: thousands of wrong arguments. Prints how many calls it outlived.
const path = require("node:path");
const { resolve } = require("node-gyp-build");

const native = require(resolve(path.join(__dirname, "../..")));
const META = 60;
const values = [
  undefined,
  null,
  0,
  -1,
  Number.NaN,
  1e308,
  "x",
  {},
  [],
  () => 1,
  Symbol("s"),
  1n,
  new Float32Array(0),
  new Float32Array(4),
  new Int32Array(4),
  new Int32Array([0, 2 ** 31 - 1]),
  new Uint8Array(4),
  new Uint16Array(4),
  new Float64Array(27),
  new Float64Array(31),
  ...[34, 38, 56, META, 64].flatMap((size) => [new Float64Array(size), new Float64Array(size).fill(4)]),
  new Float64Array(META).fill(Number.NaN),
  new Float64Array(META).fill(1e300),
  new Float64Array(META).fill(-1),
  new DataView(new ArrayBuffer(8)),
  new ArrayBuffer(8),
];

let state = 12345;
function random(below) {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return (state >>> 8) % below;
}

let calls = 0;
for (const [name, call] of Object.entries(native)) {
  if (typeof call !== "function") continue;
  for (let i = 0; i < 2000; i++) {
    const args = Array.from({ length: random(40) }, () => values[random(values.length)]);
    calls++;
    try {
      const result = call(...args);
      if (result instanceof Promise) result.catch(() => undefined);
    } catch (error) {
      if (!(error instanceof Error) && Object.prototype.toString.call(error) !== "[object Error]") throw error;
    }
    if (name === "noop") break;
  }
}
console.log(`${calls} calls`);
