"use strict";
// What the browsers of boxes and of maps have in common: the page's data, orders of images, SVG, and the tip.
const Shared = (() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  // A flat list in rows of `width`, each made into something.
  const rows = (flat, width, make) => {
    const made = [];
    for (let at = 0; at < flat.length; at += width) made.push(make(flat.slice(at, at + width), made.length));
    return made;
  };
  let photos = null; // parsed at the first look: they are most of the page
  const photosOf = (image) => (photos ??= read("browser-photos"))[image.place];

  // next: decides where images differ as much as each other.
  const orders = (next) => ({
    most: (a, b) => Math.abs(b.difference) - Math.abs(a.difference) || next(a, b),
    second: (a, b) => b.difference - a.difference,
    first: (a, b) => a.difference - b.difference,
    errors: (a, b) => b.errors - a.errors,
    name: (a, b) => a.image.name.localeCompare(b.image.name, undefined, { numeric: true }),
  });
  // Equal images stay as they were; a difference that is rounding is none.
  const sorted = (items, order) => items.sort((a, b) => order(a, b) || a.image.place - b.image.place);
  const rounded = (difference) => Math.round(difference * 1e6) / 1e6;

  const NS = document.getElementById("browser-svg").namespaceURI;
  const make = (tag, attributes = {}, ...content) => {
    const made = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...content);
    return made;
  };
  const sizeOf = ({ width, height }) => ({ width, height, preserveAspectRatio: "none" });
  // The photo that fills an image's SVG, or grey where there is none.
  const photo = (image, uri) =>
    uri ? make("image", { ...sizeOf(image), href: uri }) : make("rect", { width: image.width, height: image.height, class: "no-photo" });

  // The tip: lines beside a point of the window, on the page or in the dialog that `owner` is in.
  const tip = document.getElementById("tip");
  const hideTip = () => (tip.hidden = true);
  const showTip = (lines, owner, x, y) => {
    (owner.closest("dialog") ?? document.body).append(tip); // a modal dialog lies above everything else
    tip.replaceChildren(...lines.map((line) => Object.assign(document.createElement("div"), { textContent: line })));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - width - 6)) + "px";
    tip.style.top = (y + 16 + height > innerHeight - 6 ? Math.max(6, y - height - 12) : y + 16) + "px";
  };

  return { read, rows, photosOf, orders, sorted, rounded, make, sizeOf, photo, hideTip, showTip };
})();
