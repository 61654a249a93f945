/** Prints what this process sees of the CUDA backend, asked twice, and why `cuda:<argument>` cannot be used. */
import { backendInfo, empty } from "../../lib/index.js";

const { available, reason, message, devices } = backendInfo().cuda;
const first = { available, reason, message, devices: devices?.map(({ name, message }) => ({ name, message })) };
if (process.env.RLSD_EMULATION_COUNT_ERROR === "802") process.env.RLSD_EMULATION_COUNT_ERROR = "0";
let refusal: string | undefined;
try {
  empty([1], "f32", `cuda:${process.argv[2] ?? 0}`);
} catch (error) {
  refusal = (error as Error).message;
}
process.stdout.write(JSON.stringify({ ...first, again: backendInfo().cuda.available, refusal }));
