// Shows what mentions all the words typed: of the whole page, whatever is marked as filtered.
const filter = root.querySelector("#filter");
const count = root.querySelector("#filter-count");
const filtered = [...document.querySelectorAll("[data-filtered]")];
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let left = 0;
  for (const one of filtered) {
    const text = (one.dataset.filtered || one.textContent).toLowerCase();
    one.hidden = !words.every((word) => text.includes(word));
    left += !one.hidden;
  }
  count.textContent = words.length ? `${left} of ${filtered.length}${count.dataset.what}` : "";
});
