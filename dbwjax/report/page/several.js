const filter = root.querySelector("#run-filter");
const count = root.querySelector("#run-count");
const filtered = [...document.querySelectorAll("[data-filtered]")];
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let left = 0;
  for (const one of filtered) {
    const text = (one.dataset.filtered || one.textContent).toLowerCase();
    one.hidden = !words.every((word) => text.includes(word));
    left += !one.hidden;
  }
  count.textContent = words.length ? `${left} of ${filtered.length} lines and panels of this page` : "";
});
