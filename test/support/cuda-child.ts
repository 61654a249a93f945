/** Prints what this process sees of the CUDA backend that RLSD_CUDA_LIBRARY names. */
import { backendInfo } from "../../lib/index.js";

const { available, reason, message } = backendInfo().cuda;
process.stdout.write(JSON.stringify({ available, reason, message }));
