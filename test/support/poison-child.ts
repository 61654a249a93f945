/** Reads memory that is not the device's, and says what each later call answers. */
import { empty, RlsdError, toHost } from "../../lib/index.js";
import { fromPointer } from "../../lib/interop.js";

function answer(call: () => unknown): string {
  try {
    call();
    return "done";
  } catch (error) {
    return error instanceof RlsdError ? `${error.code}: ${error.message}` : String(error);
  }
}

const answers = [
  answer(() => empty([4], "f32", "cuda:0")),
  answer(() => toHost(fromPointer(4096n, { shape: [4], dtype: "f32", device: "cuda:0" }))),
  answer(() => toHost(empty([4], "f32", "cuda:0"))),
];
process.stdout.write(JSON.stringify(answers));
