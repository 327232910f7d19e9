"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Tables sorted by a click on a heading; a second click turns the order.
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = parseFloat(text.replace("−", "-"));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return typeof a === "number" ? b - a : a.localeCompare(b);
  };
  all("table.sortable").forEach((table) => {
    const headings = all("thead th", table);
    headings.forEach((heading, place) => {
      const button = heading.querySelector("button");
      const column = Number(button.dataset.column ?? place);
      button.addEventListener("click", () => {
        const turned = heading.getAttribute("aria-sort") === "descending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", turned ? "ascending" : "descending");
        const rows = all("tbody tr", table).sort((a, b) => compare(valueOf(a, column), valueOf(b, column)));
        table.tBodies[0].append(...(turned ? rows.reverse() : rows));
      });
    });
  });

  // Paper has no folds.
  addEventListener("beforeprint", () => all("details").forEach((item) => (item.open = true)));
})();
