import { type Task, TaskQueue } from "../../lib/verifiers/task-queue.js";
import { sample } from "./support.js";

const task = (id: number): Task => ({ id, sample: sample("x"), resolve() {}, reject() {}, done: false });

/** A queue of tasks 0, 1, ... of which the first `taken` have been taken. */
function queueOf(count: number, taken: number): { queue: TaskQueue; taken: Task[] } {
  const queue = new TaskQueue();
  for (let id = 0; id < count; id++) queue.push(task(id));
  return { queue, taken: Array.from({ length: taken }, () => queue.take()!) };
}

function rest(queue: TaskQueue): number[] {
  const ids: number[] = [];
  for (let next = queue.take(); next !== undefined; next = queue.take()) ids.push(next.id);
  return ids;
}

const from = (first: number, end: number) => Array.from({ length: end - first }, (_, i) => first + i);

// The front is dropped when the 1025th of 2000 is taken: of what was taken, places are left for those after it alone.
test.each([8, 1024, 1025, 1027, 1040])("what is put back after %d were taken comes first, and each task once", (n) => {
  const { queue, taken } = queueOf(2000, n);
  queue.putBack(taken.slice(-8));
  expect(queue.length).toBe(2000 - n + 8);
  expect(rest(queue)).toEqual(from(n - 8, 2000));
});

test("a task that is settled while it waits is passed over", () => {
  const { queue, taken } = queueOf(4, 2);
  taken[1]!.done = true;
  queue.putBack(taken);
  expect(rest(queue)).toEqual([0, 2, 3]);
});

test("draining empties the queue of what was not taken", () => {
  const { queue } = queueOf(4, 1);
  expect(queue.drain().map(({ id }) => id)).toEqual([1, 2, 3]);
  expect([queue.length, queue.take()]).toEqual([0, undefined]);
});
