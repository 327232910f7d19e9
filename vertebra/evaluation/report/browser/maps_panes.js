"use strict";
// An image's maps of classes over its photo as SVG, where two of them differ, and what stands under the pointer.
const Panes = (() => {
  const { make, hideTip, showTip } = Shared;
  const { data } = Model;
  const measure = ({ cls }) => (cls === null ? "mIoU" : "IoU");
  const percent = (value) => `${value > 0 && value < 0.05 ? "< 0.1" : value.toFixed(1)}\u00a0%`;
  const colour = (label) => `rgb(${data.colours[label].join(",")})`;
  // First alone right, second alone, neither, ignored; as in maps.css.
  const KINDS = ["first", "second", "neither", "ignored"];
  const PAINTS = [[51, 153, 255], [255, 140, 0], [190, 20, 90], [150, 150, 150]];

  const swatch = (paint, ...words) => {
    const made = Object.assign(document.createElement("span"), { className: "shade" });
    const square = Object.assign(document.createElement("i"), { className: "swatch" });
    square.style.background = paint;
    made.append(square, ...words);
    return made;
  };

  // Photo, truth, the sides' maps, and where they are wrong: {pane, head, rest, letter, more}.
  const of = ({ image, results, sides, cls }) => {
    const names = sides.map((side) => data.sides[side].name);
    const [first, second, neither] = Model.shares(image, sides);
    const there = image.classes.filter((row) => row.truly).map((row) => row.cls);
    const others = image.classes.filter((row) => !row.truly && sides.some((side) => row.sides[side].given)).map((row) => row.cls);
    const named = (labels) => labels.map((label) => data.classes[label]).join(", ");
    const list = (labels) => labels.map((label) => swatch(colour(label), data.classes[label]));
    const what = cls === null ? "mIoU" : `IoU of ${data.classes[cls]}`;
    const wrong = names.length > 1
      ? `A alone right ${percent(first)}, B alone ${percent(second)}, both wrong ${percent(neither)}`
      : `wrong ${percent(neither)}`;
    return [
      { pane: "photo", head: "picture", rest: others.length ? "not there, but answered: " : "", words: named(others), more: list(others) },
      { pane: "truth", head: "truth", rest: there.length ? "" : "no pixel counts", words: named(there), more: list(there) },
      ...results.map((one, at) => ({
        pane: at, head: names[at], letter: names.length > 1 ? "AB"[at] : "",
        rest: `${what} ${one.score.toFixed(1)}, ${percent(one.accuracy)} of pixels right`,
      })),
      { pane: "difference", head: names.length > 1 ? "difference" : "errors", rest: wrong },
    ];
  };

  // Each map's pixels as numbers of red, green, blue and whether they are clear, at the size in which the page has them.
  const decoded = new Map();
  const decode = (uri) => {
    if (!decoded.has(uri)) {
      if (decoded.size > 200) decoded.clear();
      decoded.set(uri, (async () => {
        const picture = Object.assign(new Image(), { src: uri });
        await picture.decode();
        const { width, height } = picture;
        const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
        context.drawImage(picture, 0, 0);
        return { width, height, values: new Uint32Array(context.getImageData(0, 0, width, height).data.buffer) };
      })());
    }
    return decoded.get(uri);
  };
  const mapsOf = ({ image, sides }) => Promise.all(["truth", ...sides].map((which) => decode(Model.map(image, which))));
  const isClear = (value) => value >>> 24 === 0;

  // A picture of where the sides are wrong: what both have right is left clear.
  const difference = async (item) => {
    const [truth, a, b = a] = await mapsOf(item);
    const { width, height } = truth;
    const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
    const painted = context.createImageData(width, height);
    truth.values.forEach((value, at) => {
      const isA = a.values[at] === value;
      const isB = b.values[at] === value;
      const kind = isClear(value) ? 3 : isA && isB ? -1 : isA ? 0 : isB ? 1 : 2;
      if (kind >= 0) painted.data.set([...PAINTS[kind], 255], 4 * at);
    });
    context.putImageData(painted, 0, 0);
    return context.canvas.toDataURL();
  };

  // focusable: the truth can be reached by Tab, and the arrow keys move a cross over all panes.
  const draw = (svg, item, pane, { focusable = false } = {}) => {
    const { image } = item;
    const size = Shared.sizeOf(image);
    const photo = Shared.photo(image, Model.photo(image));
    svg.replaceChildren(photo);
    svg.item = item;
    if (focusable && pane === "truth") {
      svg.cursor = { x: image.width / 2, y: image.height / 2 };
      svg.setAttribute("tabindex", "0");
      svg.setAttribute("role", "application"); // so that screen readers leave it the arrow keys
      svg.setAttribute("aria-label", `${svg.getAttribute("aria-label")}; arrow keys tell its pixels`);
    }
    if (pane === "difference") {
      photo.classList.add("faint");
      difference(item).then((href) => svg.append(make("image", { ...size, href, class: "map differs" })));
    } else if (pane !== "photo") {
      const href = Model.map(image, pane === "truth" ? pane : item.sides[pane]);
      svg.append(make("image", { ...size, href, class: "map" }));
    }
    return photo;
  };

  const keys = (field) =>
    field.append(...KINDS.map((kind, at) => {
      const words = data.pair.length > 1
        ? ["A right, B wrong", "B right, A wrong", "both wrong", "ignored"]
        : ["", "", "wrong", "ignored"];
      return words[at] && swatch(`rgb(${PAINTS[at].join(",")})`, words[at]);
    }).filter(Boolean));

  // Pointing at a pane, or the arrow keys in it, tell what truth and sides have there.
  const known = new Map(data.colours.map(([red, green, blue], label) => [((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0, label]));
  const linesAt = async (item, x, y) => {
    const heads = ["truth", ...item.sides.map((side) => data.sides[side].name)];
    return (await mapsOf(item)).map(({ width, height, values }, at) => {
      const value = values[Math.floor((y / item.image.height) * height) * width + Math.floor((x / item.image.width) * width)];
      return `${heads[at]}: ${isClear(value) ? (at ? "no class" : "ignored") : data.classes[known.get(value)] ?? "?"}`;
    });
  };
  const isActive = (svg) => svg.matches("svg[tabindex]:focus-visible"); // a click moves or zooms, and shows no cross
  const mark = (svg, ...paths) => {
    svg.closest(".panes").querySelectorAll("svg").forEach((pane) => {
      pane.querySelectorAll(".cross").forEach((path) => path.remove());
      pane.append(...paths.map((path) => path.cloneNode()));
    });
  };
  // The cross of the focused pane, at `svg.cursor` within what is seen of the image, and the tip beside it.
  const place = async (svg) => {
    if (!isActive(svg)) return [];
    const { x: left, y: top, width, height } = svg.viewBox.baseVal;
    const x = Math.max(left, Math.min(svg.cursor.x, left + width - 0.5));
    const y = Math.max(top, Math.min(svg.cursor.y, top + height - 0.5));
    svg.cursor = { x, y };
    const arm = width / 30;
    const d = `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`;
    mark(svg, make("path", { d, class: "cross casing" }), make("path", { d, class: "cross" }));
    const lines = await linesAt(svg.item, x, y);
    const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
    if (isActive(svg)) showTip(lines, svg, at.x, at.y);
    return lines;
  };
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const follow = (root) => {
    const told = Object.assign(document.createElement("p"), { className: "sr" });
    told.setAttribute("aria-live", "polite");
    root.after(told);
    const tell = async (svg) => (told.textContent = (await place(svg)).join("; "));
    root.addEventListener("focusin", ({ target: svg }) => isActive(svg) && tell(svg));
    root.addEventListener("focusout", ({ target: svg }) => {
      hideTip();
      if (svg.cursor) mark(svg);
    });
    root.addEventListener("keydown", (event) => {
      const { target: svg, key } = event;
      const step = STEPS[key];
      if (!step || !isActive(svg) || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation(); // in the dialog they go to the next image
      const pixels = Math.max(1, svg.viewBox.baseVal.width / 40);
      svg.cursor = { x: svg.cursor.x + step[0] * pixels, y: svg.cursor.y + step[1] * pixels };
      tell(svg);
    });
    root.addEventListener("pointermove", async (event) => {
      const svg = event.target.closest("svg");
      if (event.pointerType === "touch" || event.buttons || !svg?.item) return hideTip();
      const { item } = svg;
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      if (x < 0 || y < 0 || x >= item.image.width || y >= item.image.height) return hideTip();
      showTip(await linesAt(item, x, y), svg, event.clientX, event.clientY);
    });
    root.addEventListener("pointerleave", hideTip);
  };

  return { measure, of, draw, keys, follow, place };
})();
