const charts = [...root.querySelectorAll("[data-chart]")];
const cursor = root.querySelector("#curves-cursor");
const readout = root.querySelector(".readout");
const at = root.querySelector("#curves-at");
const choice = (name) => {
  const chosen = root.querySelector(`input[name="curves-${name}"]:checked`);
  return chosen ? chosen.value : Object.keys(data.curves)[0].split("-")[0];
};
const isOn = (place) => root.querySelector(`input[name="curves-rule"][value="${place}"]`).checked;
const shown = () => `${choice("measure")}-${choice("over")}-${choice("scale")}`;

// The value of a curve at x, linear between its points; null outside it.
function valueAt(curve, part, x) {
  const xs = curve.x;
  if (!xs.length || x < xs[0] || x > xs[xs.length - 1]) return null;
  let after = xs.findIndex((value) => value >= x);
  if (after === 0 || xs[after] === x) return curve[part][after];
  const [a, b] = [curve[part][after - 1], curve[part][after]];
  if (a === null || b === null) return null;
  return a + (b - a) * (x - xs[after - 1]) / (xs[after] - xs[after - 1]);
}
const shownValue = (value, measure) => value === null ? "-" : measure === "accuracy" ? value.toFixed(3) : page.digits(value);

function moveCursor() {
  const name = shown(), place = data.places[name], measure = choice("measure");
  const x = place.x[0] + (place.x[1] - place.x[0]) * cursor.value / cursor.max;
  const where = place.unit === "s" ? `${page.digits(x)} s` : `${page.digits(x)} iterations`;
  at.textContent = where;
  cursor.setAttribute("aria-valuetext", where);
  const svg = charts.find((one) => one.dataset.chart === name).querySelector("svg");
  const [, , wide, high] = svg.getAttribute("viewBox").split(" ").map(Number);
  svg.querySelector(".cursor-mark")?.remove();
  const [left, top, width, height] = place.box;
  const px = wide * (left + width * (x - place.x[0]) / (place.x[1] - place.x[0]));
  const mark = page.drawn("g", { class: "cursor-mark" },
    page.drawn("line", { x1: px, x2: px, y1: high * top, y2: high * (top + height) }));
  const rows = [];
  data.curves[`${measure}-${choice("over")}`].forEach((curve, rule) => {
    if (!curve || !isOn(rule)) return;
    const [middle, low, high_] = ["middle", "low", "high"].map((part) => valueAt(curve, part, x));
    const cells = [page.element("th", { scope: "row" }, page.element("code", {}, data.rules[rule])),
      page.element("td", {}, shownValue(middle, measure))];
    if (data.worlds > 1) cells.push(page.element("td", {}, middle === null ? "-" :
      `${shownValue(low, measure)} to ${shownValue(high_, measure)}`));
    rows.push([middle, page.element("tr", {}, ...cells)]);
    const level = middle === null ? null : place.error ? 1 - middle : middle;
    if (level === null || (place.log && level <= 0)) return;
    const scale = place.log ? Math.log : (value) => value;
    const share = (scale(level) - scale(place.y[0])) / (scale(place.y[1]) - scale(place.y[0]));
    if (share >= 0 && share <= 1) mark.append(page.drawn("circle",
      { cx: px, cy: high * (top + height * (1 - share)), r: 2.4 }));
  });
  svg.append(mark);
  const better = measure === "accuracy" ? -1 : 1;
  rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : better * (a - b));
  const head = [page.element("th", { scope: "col" }, "rule"), page.element("th", { scope: "col" }, measure)];
  if (data.worlds > 1) head.push(page.element("th", { scope: "col" }, "10 to 90 %"));
  readout.replaceChildren(page.element("table", {}, page.element("thead", {}, page.element("tr", {}, ...head)),
    page.element("tbody", {}, ...rows.map(([, row]) => row))));
}

function show() {
  for (const one of charts) one.hidden = one.dataset.chart !== shown();
  data.rules.forEach((_, rule) => {
    for (const one of root.querySelectorAll(`[id$="-rule-${rule}"], [id$="-band-${rule}"]`)) {
      one.style.display = isOn(rule) ? "" : "none";
    }
  });
  moveCursor();
}

for (const input of root.querySelectorAll('input[type="radio"], input[type="checkbox"]')) {
  input.addEventListener("change", show);
}
cursor.addEventListener("input", moveCursor);
for (const one of charts) {
  one.addEventListener("pointermove", (event) => {
    const box = one.querySelector("svg").getBoundingClientRect();
    const place = data.places[shown()];
    const share = ((event.clientX - box.left) / box.width - place.box[0]) / place.box[2];
    cursor.value = Math.round(cursor.max * Math.min(1, Math.max(0, share)));
    moveCursor();
  });
}
show();
