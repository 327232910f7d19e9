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

  // The order of the images.
  const cases = document.getElementById("cases");
  const difference = (item) => Number(item.dataset.difference);
  const place = (item) => Number(item.dataset.place);
  const orders = {
    most: (a, b) => place(a) - place(b),
    second: (a, b) => difference(b) - difference(a) || place(a) - place(b),
    first: (a, b) => difference(a) - difference(b) || place(a) - place(b),
  };
  const order = document.getElementById("order");
  const sort = () => cases.append(...all(".case", cases).sort(orders[order.value]));
  order.addEventListener("change", sort);
  if (order.value !== "most") sort();

  // Kinds of boxes on and off.
  all(".controls input").forEach((input) => {
    const apply = () => document.body.classList.toggle("hide-" + input.dataset.kind, !input.checked);
    input.addEventListener("change", apply);
    apply();
  });

  // One image at the size of the window; arrow keys walk through them.
  const viewer = document.getElementById("viewer");
  let shown = null;
  const show = (item) => {
    if (!item) return;
    shown = item;
    viewer.querySelector("h3").textContent = item.querySelector("h3").textContent;
    viewer.querySelector(".stage").replaceChildren(item.querySelector(".panes").cloneNode(true));
    if (!viewer.open) viewer.showModal();
  };
  const walk = (step) => show(step > 0 ? shown.nextElementSibling : shown.previousElementSibling);
  cases.addEventListener("click", (event) => {
    if (event.target.closest(".enlarge, .panes")) show(event.target.closest(".case"));
  });
  all("[data-step]", viewer).forEach((button) => button.addEventListener("click", () => walk(Number(button.dataset.step))));
  viewer.querySelector("[data-close]").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("close", () => shown?.querySelector(".enlarge").focus({ preventScroll: true }));
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") walk(1);
    if (event.key === "ArrowLeft") walk(-1);
  });

  // Paper has no folds.
  addEventListener("beforeprint", () => all("details").forEach((item) => (item.open = true)));
})();
