/**
 * Entry of a thread that ends its process and all that this has started once the lifeline closes. The main thread cannot do
 * that itself: it may be in a loop that never ends.
 */
import { Socket } from "node:net";
import { killGroup } from "./kill-group.js";
import { LIFELINE } from "./wire.js";

const lifeline = new Socket({ fd: LIFELINE, readable: true, writable: false });
lifeline.on("error", () => {}).on("close", () => killGroup(process.pid));
lifeline.resume();
