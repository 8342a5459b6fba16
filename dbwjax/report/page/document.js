// What every section may use: page.element, page.drawn, page.digits, page.say.
const page = {
  // An HTML element with attributes and children; text becomes text, never markup.
  element(name, attributes = {}, ...children) {
    return page.fill(document.createElement(name), attributes, children);
  },
  // The same of SVG.
  drawn(name, attributes = {}, ...children) {
    return page.fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
  },
  fill(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) throw new Error("use addEventListener for " + name);
      made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  },
  // Three significant digits, and all before the point.
  digits(value) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "-";
    if (value === 0) return "0";
    const size = Math.floor(Math.log10(Math.abs(value)));
    return size < -4 || size > 6 ? value.toExponential(2) : value.toFixed(Math.max(0, 2 - size));
  },
  // Tells a reader who does not see; the same words again are told again.
  say(text) {
    const live = document.getElementById("live");
    live.textContent = live.textContent === text ? text + "\u00a0" : text;
  },
  section(key, start) {
    const root = document.getElementById(key);
    const told = document.getElementById("data-" + key);
    try {
      start(root, told ? JSON.parse(told.textContent) : null);
      root.dataset.started = "yes";
    } catch (error) { // the other sections still work
      console.error(error);
    }
  },
};
// On paper everything is shown.
window.addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) { one.open = true; one.dataset.printing = "yes"; }
});
window.addEventListener("afterprint", () => {
  for (const one of document.querySelectorAll("details[data-printing]")) { one.open = false; delete one.dataset.printing; }
});
