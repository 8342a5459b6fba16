const filter = root.querySelector("#cell-filter");
const count = root.querySelector("#cell-count");
const cells = [...root.querySelectorAll(".cell")];
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let left = 0;
  for (const cell of cells) {
    const text = cell.textContent.toLowerCase();
    cell.hidden = !words.every((word) => text.includes(word));
    left += !cell.hidden;
  }
  count.textContent = words.length ? `${left} of ${cells.length}` : "";
});
