/**
 * The page's only script: readings under the pointer, and which samples are shown. It writes text, never markup, and
 * without it everything but those two is there.
 */
export const SCRIPT = `
for (const figure of document.querySelectorAll(".chart")) {
  const rows = JSON.parse(figure.dataset.readings);
  const svg = figure.querySelector("svg"), tip = figure.querySelector(".tip"), cross = figure.querySelector(".cross");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale;
    let best = rows[0];
    for (const row of rows) if (Math.abs(row[0] - x) < Math.abs(best[0] - x)) best = row;
    cross.setAttribute("x1", best[0]);
    cross.setAttribute("x2", best[0]);
    cross.style.visibility = "visible";
    tip.textContent = [figure.dataset.x + " " + best[1], ...best[2].map(([name, value]) => name + "  " + value)].join("\\n");
    tip.style.display = "block";
    const frame = figure.getBoundingClientRect(), left = best[0] / scale + box.left - frame.left;
    tip.style.left = (left > box.width / 2 ? left - tip.offsetWidth - 8 : left + 8) + "px";
    tip.style.top = box.top - frame.top + 8 + "px";
  });
  svg.addEventListener("pointerleave", () => {
    tip.style.display = "none";
    cross.style.visibility = "hidden";
  });
}
const reading = document.getElementById("reading");
if (reading !== null) {
  const show = (event) => {
    const told = event.target.dataset?.r;
    if (told !== undefined) reading.textContent = JSON.stringify(event.target.textContent) + "  " + told;
  };
  document.addEventListener("pointerover", show);
  document.addEventListener("focusin", show);
  const step = document.getElementById("by-step"), side = document.getElementById("by-side");
  const filter = () => {
    for (const card of document.querySelectorAll(".sample")) {
      const fits = (step.value === "" || card.dataset.step === step.value) && (side === null || side.value === "" || card.dataset.side === side.value);
      card.hidden = !fits;
    }
  };
  step.addEventListener("change", filter);
  side?.addEventListener("change", filter);
}
`;
