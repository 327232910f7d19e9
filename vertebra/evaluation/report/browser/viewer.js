"use strict";
// One image at the size of the window: all panes zoom and move in step.
const Viewer = (() => {
  const MOST = 16;
  const dialog = document.getElementById("viewer");
  const stage = dialog.querySelector(".stage");
  const title = dialog.querySelector("h3");
  const readout = dialog.querySelector("output");
  let item = null;
  let view = { x: 0, y: 0, width: 1, height: 1 };
  let walk = () => {};
  let closed = () => {};

  const svgs = () => [...stage.querySelectorAll("svg")];
  const zoom = () => item.image.width / view.width;
  const between = (low, value, high) => Math.max(low, Math.min(value, high));

  let waiting = 0;
  const apply = () => {
    const { width, height } = item.image;
    view.x = between(0, view.x, width - view.width);
    view.y = between(0, view.y, height - view.height);
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      for (const svg of svgs()) {
        svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
        Panes.place(svg);
      }
      readout.textContent = `${Math.round(100 * zoom())} %`;
      stage.classList.toggle("zoomed", zoom() > 1.001);
    });
  };
  // A point of the screen in pixels of the image, whichever pane it lies in.
  const pointIn = (svg, x, y) => new DOMPoint(x, y).matrixTransform(svg.getScreenCTM().inverse());
  const middle = () => ({ x: view.x + view.width / 2, y: view.y + view.height / 2 });
  const zoomBy = (factor, at = middle()) => {
    const width = item.image.width / between(1, zoom() * factor, MOST);
    const share = width / view.width;
    const height = view.height * share;
    view = { x: at.x - (at.x - view.x) * share, y: at.y - (at.y - view.y) * share, width, height };
    apply();
  };
  const whole = () => {
    view = { x: 0, y: 0, width: item.image.width, height: item.image.height };
    apply();
  };
  const moveBy = (dx, dy) => {
    view.x += dx;
    view.y += dy;
    apply();
  };

  const show = (next, panes, heading) => {
    item = next;
    title.textContent = heading;
    stage.replaceChildren(panes);
    if (!dialog.open) dialog.showModal();
    Shared.hideTip();
    for (const svg of svgs()) sizes.observe(svg);
    whole();
  };
  const sizes = new ResizeObserver((changed) => changed.forEach(({ target }) => Panes.place(target)));

  // Fingers and the mouse: one moves the image, two zoom it.
  const pointers = new Map();
  let spread = 0;
  const distance = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  stage.addEventListener("pointerdown", (event) => {
    if (!event.target.closest("svg")) return;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (pointers.size === 2) spread = distance();
  });
  addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    const svg = event.target.closest?.(".stage svg") ?? svgs()[0];
    if (!before || !svg || !dialog.open) return;
    const now = { x: event.clientX, y: event.clientY };
    pointers.set(event.pointerId, now);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      const wider = distance();
      if (spread) zoomBy(wider / spread, pointIn(svg, (a.x + b.x) / 2, (a.y + b.y) / 2));
      spread = wider;
    } else if (zoom() > 1.001) {
      const [start, end] = [pointIn(svg, before.x, before.y), pointIn(svg, now.x, now.y)];
      moveBy(start.x - end.x, start.y - end.y);
    }
  });
  const lift = (event) => pointers.delete(event.pointerId);
  addEventListener("pointerup", lift);
  addEventListener("pointercancel", lift);
  stage.addEventListener("wheel", (event) => {
    const svg = event.target.closest("svg");
    if (!svg) return;
    event.preventDefault();
    const lines = event.deltaMode ? 30 : 1;
    zoomBy(Math.exp(-event.deltaY * lines * 0.002), pointIn(svg, event.clientX, event.clientY));
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => {
    const svg = event.target.closest("svg");
    if (svg) zoom() > 1.001 ? whole() : zoomBy(2.5, pointIn(svg, event.clientX, event.clientY));
  });

  const keys = {
    ArrowRight: () => walk(1),
    ArrowLeft: () => walk(-1),
    "+": () => zoomBy(1.5),
    "=": () => zoomBy(1.5),
    "-": () => zoomBy(1 / 1.5),
    0: whole,
  };
  const moves = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? moves[event.key] : null;
    if (step) moveBy((step[0] * view.width) / 8, (step[1] * view.height) / 8);
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
  for (const button of dialog.querySelectorAll("[data-step]"))
    button.addEventListener("click", () => walk(Number(button.dataset.step)));
  for (const button of dialog.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => zoomBy(Number(button.dataset.zoom)));
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    pointers.clear();
    Shared.hideTip();
    stage.replaceChildren();
    closed();
  });
  Panes.follow(stage);

  return { dialog, show, onWalk: (call) => (walk = call), onClose: (call) => (closed = call) };
})();
