const rules = data.policies;
const pick = (name) => root.querySelector("." + name);
const policySelect = pick("gantt-policy"), viewSelect = pick("gantt-view"), told = pick("gantt-cell");
const figures = [...root.querySelectorAll(".gantt-figure")];
const now = { policy: 0, view: null, svg: null, box: null, cell: -1, from: null, to: null, zoom: 1 };
let layer = null;

function titles(policy) {
  return figures.filter((one) => Number(one.dataset.policy) === policy);
}
function show(policy, key) {
  now.policy = policy;
  now.view = rules[policy].views.find((one) => one.key === key) || rules[policy].views[0];
  for (const one of figures) {
    one.hidden = Number(one.dataset.policy) !== policy || one.dataset.view !== now.view.key;
    if (!one.hidden) { now.box = one.querySelector(".gantt"); now.svg = now.box.querySelector("svg"); }
  }
  for (const one of root.querySelectorAll(".by-policy")) one.hidden = Number(one.dataset.policy) !== policy;
  if (layer) layer.remove();
  layer = page.drawn("g", { class: "gantt-mark" });
  now.svg.append(layer);
  now.cell = -1; now.from = now.to = null;
  told.textContent = "No cell is chosen.";
  zoom(1); range(); buttons();
}
function fillViews(policy) {
  viewSelect.replaceChildren(...titles(policy).map((one) => {
    const label = one.querySelector(".gantt").getAttribute("aria-label");
    return page.element("option", { value: one.dataset.view }, label.slice(label.lastIndexOf(", ") + 2));
  }));
}
policySelect.addEventListener("change", () => {
  const key = viewSelect.value;
  fillViews(Number(policySelect.value));
  show(Number(policySelect.value), key);
  viewSelect.value = now.view.key;
});
viewSelect.addEventListener("change", () => show(now.policy, viewSelect.value));

// Times and places.
const released = (v, i) => v.start[i] + v.computing[i] + v.waiting[i] + v.flight[i];
function x(v, time) {
  for (let w = 0; w < v.windows.length; w++) {
    const [low, high] = v.windows[w], slack = 1e-6 * (high - low);
    if (time >= low - slack && time <= high + slack) return v.box[0] + (v.box[2] * (time - low + v.origin[w])) / v.width;
  }
  return null;
}
function y(v, worker) {
  const row = v.rows.indexOf(worker);
  return row < 0 ? null : v.box[1] + (v.box[3] * (row + 0.6)) / (v.rows.length + 0.2);
}
function timeAt(v, px) {
  const place = ((px - v.box[0]) / v.box[2]) * v.width;
  for (let w = v.windows.length - 1; w >= 0; w--) {
    if (place >= v.origin[w] || w === 0) {
      const [low, high] = v.windows[w];
      return Math.min(high, Math.max(low, low + place - v.origin[w]));
    }
  }
}
function rowAt(v, py) {
  const row = Math.round(((py - v.box[1]) / v.box[3]) * (v.rows.length + 0.2) - 0.6);
  return Math.min(v.rows.length - 1, Math.max(0, row));
}
function of(v, worker) {
  const found = [];
  for (let i = 0; i < v.worker.length; i++) if (v.worker[i] === worker) found.push(i);
  return found;
}
function cellAt(v, worker, time) {
  const own = of(v, worker);
  let best = -1, far = Infinity;
  for (const i of own) {
    const away = Math.max(v.start[i] - time, time - released(v, i), 0);
    if (away < far) { far = away; best = i; }
  }
  return best;
}
// The part of a cell that is shown, as x of its two ends.
function ends(v, i) {
  for (let w = 0; w < v.windows.length; w++) {
    const low = Math.max(v.windows[w][0], v.start[i]), high = Math.min(v.windows[w][1], released(v, i));
    if (high >= low && (high > low || v.windows.length === 1)) {
      const scale = v.box[2] / v.width, origin = v.box[0] + scale * (v.origin[w] - v.windows[w][0]);
      return [origin + scale * low, origin + scale * high];
    }
  }
  return null;
}

function describe(v, i) {
  const seconds = (value) => page.digits(value) + " s";
  const wait = v.waiting[i] + v.flight[i];
  let text = `Worker ${v.worker[i]}, iteration ${v.iteration[i]}: computed ${seconds(v.computing[i])}`;
  text += v.used[i] ? "" : " (thrown away)";
  if (!(wait > 0)) return text + ", did not wait.";
  text += `, then waited ${seconds(wait)}`;
  if (v.flight[i] > 0) text += ` (${seconds(v.flight[i])} of them for a message in flight)`;
  if (v.cause[i] < 0) return text + ", due to nobody's finish.";
  return text + `, due to worker ${v.cause[i]}` + (v.from[i] < 0 ? " (that cell is not shown)." : ".");
}
function choose(i, scroll = true) {
  if (i < 0) return;
  const v = now.view;
  now.cell = i;
  const text = describe(v, i);
  told.textContent = text;
  page.say(text);
  for (const old of [...layer.children]) if (!old.classList.contains("gantt-span")) old.remove();
  const span = ends(v, i), middle = y(v, v.worker[i]), high = (0.84 * v.box[3]) / v.rows.length;
  if (span && middle !== null) {
    for (const kind of ["halo", "frame"]) {
      layer.append(page.drawn("rect", { class: kind, x: span[0], y: middle - high / 2, width: Math.max(span[1] - span[0], 1), height: high }));
    }
    arrow(v, i, high);
    if (scroll) reveal((span[0] + span[1]) / 2, middle);
  }
  buttons();
}
function arrow(v, i, high) {
  if (v.cause[i] < 0) return;
  const time = v.from[i] >= 0 ? v.start[v.from[i]] + v.computing[v.from[i]] : released(v, i) - v.flight[i];
  const at = x(v, time), begin = y(v, v.cause[i]), end = y(v, v.worker[i]);
  if (at === null || begin === null || end === null) return;
  const down = end > begin ? 1 : -1, tip = end - (down * high) / 2;
  layer.append(
    page.drawn("line", { x1: at, y1: begin, x2: at, y2: tip - 4 * down }),
    page.drawn("path", { d: `M${at} ${tip}l-3 ${-5 * down}h6z` }),
    page.drawn("path", { d: `M${at - 3} ${begin}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z` }),
  );
}
function reveal(px, py) {
  const scale = now.svg.clientWidth / now.svg.viewBox.baseVal.width;
  const left = px * scale, top = py * scale;
  if (left < now.box.scrollLeft + 20 || left > now.box.scrollLeft + now.box.clientWidth - 20) now.box.scrollLeft = left - now.box.clientWidth / 2;
  if (top < now.box.scrollTop + 20 || top > now.box.scrollTop + now.box.clientHeight - 20) now.box.scrollTop = top - now.box.clientHeight / 2;
}
function buttons() {
  const v = now.view;
  pick("gantt-cause").disabled = now.cell < 0 || v.from[now.cell] < 0;
  pick("gantt-from").disabled = pick("gantt-to").disabled = now.cell < 0;
  pick("gantt-clear").disabled = now.from === null && now.to === null;
}

// A range of time: seconds of what is shown, by worker.
function range() {
  for (const old of [...(layer ? layer.querySelectorAll(".gantt-span") : [])]) old.remove();
  const box = pick("gantt-range"), v = now.view;
  box.hidden = now.from === null || now.to === null || now.from === now.to;
  if (box.hidden) return;
  const [low, high] = [Math.min(now.from, now.to), Math.max(now.from, now.to)];
  for (const [a, b] of v.windows) {
    const from = Math.max(a, low), to = Math.min(b, high);
    if (to > from) layer.prepend(page.drawn("rect", { class: "gantt-span", x: x(v, from), y: v.box[1], width: x(v, to) - x(v, from), height: v.box[3] }));
  }
  const sums = totals(v, low, high);
  const head = page.element("tr", {}, ...["worker", "computing", "thrown away", "waiting", "in flight", "mostly due to"].map((text) => page.element("th", { scope: "col" }, text)));
  const line = (name, one) => {
    const due = [...one.due.entries()].sort((a, b) => b[1] - a[1])[0];
    const cells = [one.computing, one.wasted, one.waiting, one.flight].map((value) => page.element("td", {}, page.digits(value)));
    return page.element("tr", {}, page.element("th", { scope: "row" }, String(name)), ...cells,
      page.element("td", {}, due ? (due[0] < 0 ? "nobody" : "worker " + due[0]) + ", " + page.digits(due[1]) + " s" : "-"));
  };
  const all = { computing: 0, wasted: 0, waiting: 0, flight: 0, due: new Map() };
  for (const one of sums.values()) {
    for (const name of ["computing", "wasted", "waiting", "flight"]) all[name] += one[name];
    for (const [j, value] of one.due) all.due.set(j, (all.due.get(j) || 0) + value);
  }
  const caption = `Seconds between ${page.digits(low)} and ${page.digits(high)} s of the workers and stretches shown`;
  box.replaceChildren(page.element("table", {}, page.element("caption", {}, caption), page.element("thead", {}, head),
    page.element("tbody", {}, line("all", all), ...[...sums].map(([worker, one]) => line(worker, one)))));
  const share = (100 * (all.waiting + all.flight)) / (all.computing + all.wasted + all.waiting + all.flight);
  page.say(`${caption}: ${page.digits(share)} percent waiting.`);
}
function totals(v, low, high) {
  const found = new Map(v.rows.map((worker) => [worker, { computing: 0, wasted: 0, waiting: 0, flight: 0, due: new Map() }]));
  for (let i = 0; i < v.worker.length; i++) {
    const one = found.get(v.worker[i]), finish = v.start[i] + v.computing[i], sent = finish + v.waiting[i];
    for (const [a, b] of v.windows) {
      const part = (from, to) => {
        const seconds = Math.min(to, b, high) - Math.max(from, a, low);
        return seconds > 1e-9 * (b - a) ? seconds : 0; // less is rounding
      };
      one[v.used[i] ? "computing" : "wasted"] += part(v.start[i], finish);
      one.waiting += part(finish, sent);
      one.flight += part(sent, sent + v.flight[i]);
      const wait = part(finish, sent + v.flight[i]);
      if (wait > 0) one.due.set(v.cause[i], (one.due.get(v.cause[i]) || 0) + wait);
    }
  }
  return found;
}
function setRange(which) {
  const v = now.view, i = now.cell;
  if (i < 0) return;
  if (which === "from") now.from = v.start[i]; else now.to = released(v, i);
  if (now.from === null) now.from = v.windows[0][0];
  if (now.to === null) now.to = v.windows[v.windows.length - 1][1];
  range(); buttons();
}
function clear() { now.from = now.to = null; range(); buttons(); page.say("no range"); }

function zoom(value) {
  now.zoom = Math.min(8, Math.max(1, value));
  now.svg.style.width = 100 * now.zoom + "%";
  pick("gantt-in").disabled = now.zoom === 8;
  pick("gantt-out").disabled = now.zoom === 1;
  if (now.cell >= 0) choose(now.cell);
}
function toCause() {
  const i = now.cell;
  if (i >= 0 && now.view.from[i] >= 0) choose(now.view.from[i]);
}
function step(key) {
  const v = now.view;
  if (now.cell < 0) return choose(cellAt(v, v.rows[0], v.windows[0][0]));
  const i = now.cell, own = of(v, v.worker[i]), place = own.indexOf(i), row = v.rows.indexOf(v.worker[i]);
  if (key === "ArrowLeft") return choose(own[Math.max(0, place - 1)]);
  if (key === "ArrowRight") return choose(own[Math.min(own.length - 1, place + 1)]);
  if (key === "Home") return choose(own[0]);
  if (key === "End") return choose(own[own.length - 1]);
  const next = v.rows[Math.min(v.rows.length - 1, Math.max(0, row + (key === "ArrowUp" ? -1 : 1)))];
  choose(cellAt(v, next, v.start[i] + v.computing[i] / 2));
}
const keys = {
  Enter: toCause, "[": () => setRange("from"), "]": () => setRange("to"), Escape: clear,
  "+": () => zoom(2 * now.zoom), "=": () => zoom(2 * now.zoom), "-": () => zoom(now.zoom / 2),
};
for (const box of root.querySelectorAll(".gantt")) {
  let begun = null, dragged = false;
  const at = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(now.svg.getScreenCTM().inverse());
    return [point.x, point.y];
  };
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) step(event.key);
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
  box.addEventListener("pointerdown", (event) => { if (event.button === 0 && event.pointerType !== "touch") { begun = at(event); dragged = false; } });
  box.addEventListener("pointermove", (event) => {
    if (begun === null) return;
    const here = at(event);
    if (!dragged && Math.abs(here[0] - begun[0]) < 4) return;
    dragged = true;
    now.from = timeAt(now.view, begun[0]); now.to = timeAt(now.view, here[0]);
    range(); buttons();
  });
  window.addEventListener("pointerup", () => { begun = null; });
  box.addEventListener("click", (event) => {
    if (dragged) { dragged = false; return; } // the end of a range, not the choice of a cell
    const [px, py] = at(event);
    choose(cellAt(now.view, now.view.rows[rowAt(now.view, py)], timeAt(now.view, px)), false);
  });
}
pick("gantt-in").addEventListener("click", () => zoom(2 * now.zoom));
pick("gantt-out").addEventListener("click", () => zoom(now.zoom / 2));
pick("gantt-cause").addEventListener("click", toCause);
pick("gantt-from").addEventListener("click", () => setRange("from"));
pick("gantt-to").addEventListener("click", () => setRange("to"));
pick("gantt-clear").addEventListener("click", clear);
fillViews(0);
show(0, rules[0].views[0].key);
