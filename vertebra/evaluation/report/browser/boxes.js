"use strict";
// Boxes over a photo as SVG, with a description of each: dash, sign and label tell kinds apart, not colour alone.
const Panes = (() => {
  const { make, hideTip, showTip } = Shared;
  const LABEL_PX = 11.5;
  const { data } = Model;
  const scored = (score, digits = 2) => (score / data.scoreUnits).toFixed(digits).replace(/^0\./, ".");
  const near = (value) => value.toFixed(2).replace(/^0\./, ".");

  // What a pane shows: {box, kind, text}, the larger ones first so that the smaller ones lie above and can be pointed at.
  const entries = (item, pane) => {
    const name = (box) => data.classes[box.cls];
    const truths = () =>
      item.image.truths.map((box) => ({ box, kind: box.aside ? "excused" : "truth", text: box.aside ? "" : name(box) }));
    const found = (result) => [
      ...result.missed.map((box) => ({ box, kind: "missed", text: name(box) })),
      ...result.shown.map((box) => ({ box, kind: Model.kindOf(box), text: `${name(box)} ${scored(box.score)}` })),
    ];
    const boxes = pane === "truth" ? truths() : found(item.results[pane]);
    return boxes.sort((a, b) => b.box.w * b.box.h - a.box.w * a.box.h);
  };

  // The photo and its boxes into `svg`. pane: "truth", or 0 and 1 for A and B. focusable: boxes can be reached by Tab.
  const draw = (svg, item, pane, { focusable = false } = {}) => {
    const { image } = item;
    const pixels = Shared.photo(image, Model.photo(image));
    const drawn = entries(item, pane).map((entry) => {
      const { box, kind, text } = entry;
      const frame = { x: box.x, y: box.y, width: box.w, height: box.h };
      const group = make("g", { class: `box ${kind}${item.wanted.has(box) ? " wanted" : ""}` }, make("rect", { ...frame, class: "casing" }), make("rect", { ...frame, class: "edge" }));
      if (text && kind !== "excused") {
        const sign = data.signs[kind];
        const label = make("text");
        if (sign) label.append(make("tspan", { class: "sign" }, sign));
        label.append(make("tspan", { class: "words" }, (sign ? " " : "") + text));
        label.entry = entry;
        group.append(label);
      }
      if (box.truth >= 0) group.dataset.truth = box.truth;
      group.describe = () => describe(item, pane, entry);
      if (focusable) {
        group.setAttribute("tabindex", "0");
        group.setAttribute("role", "img");
        group.setAttribute("aria-label", group.describe().join("; "));
      }
      return group;
    });
    svg.replaceChildren(pixels, ...drawn);
    place(svg);
    return pixels;
  };

  // Labels keep their size on the screen, and stay within what is seen of the image.
  const place = (svg) => {
    const view = svg.viewBox.baseVal;
    const frame = svg.getBoundingClientRect();
    const scale = Math.min(frame.width / view.width, frame.height / view.height);
    if (!scale) return;
    const unit = 1 / scale;
    const font = LABEL_PX * unit;
    svg.style.setProperty("--unit", unit);
    const wordless = getComputedStyle(svg).getPropertyValue("--words") === "0";
    for (const label of svg.querySelectorAll("text")) {
      const { box, kind, text } = label.entry;
      const letters = (wordless ? 0 : text.length + 1) + (data.signs[kind]?.length ?? 0);
      const isError = kind !== "truth" && kind !== "right" && kind !== "missed";
      const furthest = view.x + view.width - 0.6 * font * letters - unit;
      const below = box.y + box.h + font;
      const above = box.y - 4 * unit;
      const isSeen = box.x < view.x + view.width && box.x + box.w > view.x && box.y < view.y + view.height && box.y + box.h > view.y;
      const bottom = view.y + view.height - 3 * unit;
      let y = isError ? Math.min(below, bottom) : above - font > view.y ? above : box.y + font + unit;
      if (isSeen) y = Math.max(view.y + font + unit, Math.min(y, bottom));
      const x = box.x + 2 * unit;
      label.setAttribute("x", isSeen ? Math.max(view.x + unit, Math.min(x, furthest)) : x);
      label.setAttribute("y", y);
    }
  };

  // The description of a box, in lines: class and score, its verdict, what each side makes of the object.
  const describe = (item, pane, { box, kind }) => {
    const { image, results, sides } = item;
    const name = (truth) => data.classes[truth.cls];
    const truth = box.truth >= 0 ? image.truths[box.truth] : null;
    const iou = truth ? near(Model.overlap(box, truth)) : "";
    const greatest = () => {
      const [best] = image.truths.map((one) => ({ one, iou: Model.overlap(box, one) })).sort((a, b) => b.iou - a.iou);
      return best && best.iou > 0 ? `greatest IoU ${near(best.iou)}, with ${name(best.one)}` : "it touches no object";
    };
    const verdicts = {
      truth: () => "an object to find",
      missed: () => "missed: no detection of this class takes it",
      right: () => `found: IoU ${iou}`,
      localisation: () => `localisation: box off, IoU ${iou} with ${name(truth)}`,
      classification: () => `classification: wrong class, IoU ${iou} with ${name(truth)}`,
      both: () => `both: wrong class and box off, ${greatest()}`,
      duplicate: () => `duplicate: IoU ${iou}, but a higher score has this object`,
      background: () => `background: nothing there, ${greatest()}`,
      excused: () => (pane === "truth" ? (box.aside === 1 ? "a crowd" : "difficult") + ": not counted" : "not counted: on a crowd or difficult object"),
    };
    const head = box.score === undefined ? name(box) : `${name(box)}, score ${scored(box.score, 3)}`;
    const others = truth && !truth.aside ? results.map((one, at) => {
      const taker = one.shown.find((other) => other.kind === Model.RIGHT && other.truth === box.truth);
      return `${data.sides[sides[at]].name}: ${taker ? `found, ${scored(taker.score)}` : "missed"}`;
    }) : [];
    return [head, verdicts[kind](), ...others];
  };

  // Pointing at a box (or reaching it by Tab) under `root` describes it and marks the same object in the other panes.
  const follow = (root) => {
    const scope = (box) => box.closest(".panes");
    const leave = () => {
      hideTip();
      root.querySelectorAll(".pointed").forEach((panes) => panes.classList.remove("pointed"));
      root.querySelectorAll(".same").forEach((box) => box.classList.remove("same"));
    };
    const enter = (box, x, y) => {
      leave();
      box.classList.add("same");
      if (box.dataset.truth !== undefined) {
        const same = scope(box).querySelectorAll(`.box[data-truth="${box.dataset.truth}"]`);
        same.forEach((other) => other.classList.add("same"));
      }
      scope(box).classList.add("pointed");
      showTip(box.describe(), box, x, y);
    };
    root.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return; // a finger scrolls and zooms; a tap gives the focus
      const box = event.buttons ? null : event.target.closest(".box");
      if (box?.describe) enter(box, event.clientX, event.clientY);
      else leave();
    });
    root.addEventListener("pointerleave", leave);
    root.addEventListener("focusin", (event) => {
      const box = event.target.closest(".box");
      if (!box?.describe) return leave();
      const frame = box.querySelector(".edge").getBoundingClientRect();
      enter(box, frame.left, frame.bottom - 8);
    });
    root.addEventListener("focusout", leave);
  };

  // The panes of one image: truth, then the sides.
  const measure = () => "F1";
  const of = ({ image, results, sides }) => [
    { pane: "truth", head: "truth", rest: image.truths.length === 1 ? "1 object" : `${image.truths.length} objects` },
    ...results.map((one, at) => ({
      pane: at, head: data.sides[sides[at]].name, letter: results.length > 1 ? "AB"[at] : "",
      rest: `F1 ${one.f1.toFixed(0)}: ${one.right} found, ${one.wrong} false, ${one.missed.length} missed`,
    })),
  ];

  // Boxes of each kind can be left out.
  const keys = (field, hider) => {
    for (const kind of ["right", "localisation", "classification", "both", "duplicate", "background", "missed", "excused", "labels"]) {
      const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
      box.dataset.kind = kind;
      const label = document.createElement("label");
      label.append(box);
      if (kind !== "labels") {
        const line = (name) => make("rect", { class: name, x: 3, y: 3, width: 24, height: 8 });
        const key = make("svg", { class: "key", viewBox: "0 0 30 14", "aria-hidden": "true" });
        key.append(make("g", { class: `box ${kind}` }, line("casing"), line("edge")));
        label.append(key);
      }
      const words = { right: "found", excused: "not counted (crowd, difficult)" }[kind] ?? kind;
      label.append(`${data.signs[kind] ?? ""} ${words}`.trim());
      field.append(label);
      box.addEventListener("change", () => hider.classList.toggle("hide-" + kind, !box.checked));
    }
  };

  return { measure, of, keys, draw, place, follow };
})();
