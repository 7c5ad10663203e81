"use strict";
// The leading number of "1.23 [1.10, 1.40]", "-12.3 %" or "1,234"; null where there is none.
const numberIn = (text) => {
  const found = text.replaceAll(",", "").replace("\u2212", "-").match(/^x?([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)/i);
  return found ? Number(found[1]) : null;
};
const textOf = (row, column) => row.cells[column].textContent.trim();

function sort(header) {
  const column = header.cellIndex;
  const body = header.closest("table").tBodies[0];
  const down = header.getAttribute("aria-sort") === "ascending";
  const rows = [...body.rows].map((row) => ({ row, text: textOf(row, column), number: numberIn(textOf(row, column)) }));
  const known = rows.filter((one) => one.text !== "none");
  const numeric = known.length > 0 && known.every((one) => one.number !== null);
  const compare = numeric ? (a, b) => a.number - b.number : (a, b) => a.text.localeCompare(b.text, "en", { numeric: true });
  // What is not known stays last either way.
  const unknown = rows.filter((one) => one.text === "none");
  known.sort((a, b) => (down ? compare(b, a) : compare(a, b)));
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...[...known, ...unknown].map((one) => one.row));
}

for (const header of document.querySelectorAll("th")) {
  header.tabIndex = 0;
  header.title = "sort";
  header.addEventListener("click", () => sort(header));
  header.addEventListener("keydown", (event) => {
    if (event.key === "Enter") sort(header);
  });
}

// Rows that hold every word typed.
for (const box of document.querySelectorAll("input.filter")) {
  box.hidden = false;
  const rows = [...box.nextElementSibling.querySelectorAll("tbody tr")];
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}
