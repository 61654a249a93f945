import { examine, printReport } from "../lib/cli/doctor-report.js";
import { rlsd } from "../lib/index.js";
import { deviceRows, deviceRowsText } from "../lib/ops/device-rows.js";
import { emulated, withEmulatedCuda } from "./support/emulated-cuda.js";

emulated.describe("which kernel a device has for rows of logits", () => {
  withEmulatedCuda({ RLSD_EMULATION_MOST_CLUSTER: "2" });

  it("is what doctor says of each device", () => {
    const found = { kernel: "rows-resident", blocks: 2, preferredBlocks: 4, atOnce: 1 };
    expect(examine().rows).toEqual([{ device: "cuda:0", vocab: 151936, dtype: "bf16", ...found }]);
    const write = jest.spyOn(process.stdout, "write").mockReturnValue(true);
    printReport(examine());
    const text = write.mock.calls.map(([words]) => words).join("");
    write.mockRestore();
    expect(text).toContain(
      "cuda:0: rows of 151936 bf16 columns: rows-resident by 2 blocks a row, 1 rows at a time (no room for 4 blocks a row)",
    );
  });

  it("depends on the width", () => {
    const say = (vocab: number) => deviceRowsText(deviceRows("cuda:0", vocab, "bf16", rlsd()));
    expect(say(32000)).toBe("rows-resident by 1 block a row, 6 rows at a time");
    expect(say(262144)).toBe("rows-plain (no room for 8 blocks a row)");
    expect(say(32001)).toBe("rows-plain"); // rows start off a multiple of 16 bytes
  });

  it("is refused as a call would be", () => {
    const ask = () => deviceRows("cuda:0", 2 ** 31 - 1, "bf16", rlsd());
    expect(ask).toThrow(expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }));
  });
});
