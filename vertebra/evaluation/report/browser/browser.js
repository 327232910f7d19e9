"use strict";
// The list of images with its controls. What is chosen stands in the address (#images&kind=missed...), so that a link keeps it.
(() => {
  const PAGE = 20;
  const { data } = Model;
  const root = document.getElementById("browser");
  const form = root.querySelector("form");
  const cases = document.getElementById("cases");
  const letters = data.pair.length > 1 ? ["A", "B"] : ["A"];
  const fresh = () => ({
    sides: [...data.pair], from: {}, sort: form.elements.sort.options[0].value,
    cls: null, kind: "", on: "either", text: "", page: 0, image: null,
  });
  const state = fresh();
  const hasScores = "scoreUnits" in data;
  let items = [];

  const node = (tag, attributes = {}, ...content) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) name in made ? (made[name] = value) : made.setAttribute(name, value);
    made.append(...content);
    return made;
  };
  const score = (units) => (units / data.scoreUnits).toFixed(2);

  // The panes of one image, with what stands below them; `words` are read out for what `more` shows.
  const panesOf = (item) => {
    const { name, width, height } = item.image;
    const figures = Panes.of(item).map(({ pane, head, rest, letter = "", more = [], words = "" }) => {
      const told = [rest, words].filter(Boolean).join(" ");
      const svg = Shared.make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}, ${head}${told && `: ${told}`}` });
      svg.pane = pane;
      return node("figure", {}, svg, node("figcaption", {}, letter && node("i", {}, letter), node("b", {}, head), " ", node("span", {}, rest), ...more));
    });
    return node("div", { className: "panes" }, ...figures);
  };
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(0);
  const cardOf = (item) => {
    const chip = item.results.length > 1 ? node("p", { className: "chip" }, `${Panes.measure(item)} ${signed(item.difference)}`) : "";
    const button = node("button", { type: "button", className: "enlarge" }, "Enlarge", node("span", { className: "sr" }, " " + item.image.name));
    const card = node("article", { className: "case" }, node("header", {}, node("h3", {}, item.image.name), chip, button), panesOf(item));
    card.item = item;
    return card;
  };

  // Panes are drawn when they come near the window. The first photo is marked, for whoever measures how long it took.
  let isMarked = false;
  const mark = () => performance.mark("images-drawn");
  const drawCard = (card) => {
    for (const svg of card.querySelectorAll(".panes svg")) {
      const pixels = Panes.draw(svg, card.item, svg.pane);
      resized.observe(svg);
      if (!isMarked) pixels.tagName === "image" ? pixels.addEventListener("load", mark, { once: true }) : mark();
      isMarked = true;
    }
    seen.unobserve(card);
  };
  const seen = new IntersectionObserver(
    (changes) => changes.filter((change) => change.isIntersecting).forEach((change) => drawCard(change.target)),
    { rootMargin: "300px" },
  );
  const resized = new ResizeObserver((changes) => changes.forEach((change) => Panes.place(change.target)));

  const render = () => {
    items = Model.list(state);
    const pages = Math.max(1, Math.ceil(items.length / PAGE));
    state.page = Math.max(0, Math.min(state.page, pages - 1));
    const shown = items.slice(state.page * PAGE, (state.page + 1) * PAGE).map(cardOf);
    seen.disconnect();
    resized.disconnect();
    cases.replaceChildren(...shown);
    shown.forEach((card) => seen.observe(card));
    const all = data.images.length;
    document.getElementById("browser-count").textContent =
      items.length === all ? (all === 1 ? "1 image" : `${all} images`) : `${items.length} of ${all} images`;
    root.querySelectorAll(".pager nav").forEach((pager) => {
      pager.hidden = pages === 1;
      pager.querySelector(":scope > span").textContent = `page ${state.page + 1} of ${pages}`;
      pager.querySelector('[data-page="-1"]').disabled = state.page === 0;
      pager.querySelector('[data-page="1"]').disabled = state.page === pages - 1;
    });
    document.getElementById("browser-reset").hidden = items.length === all;
    if (!items.length) cases.append(node("p", { className: "aside" }, all ? "No image is like that: widen the filter." : "There are no images here."));
    reflect();
  };

  // The controls say what the state is, and the address too.
  const reflect = () => {
    const { elements } = form;
    elements.sort.value = state.sort;
    elements.cls.value = state.cls ?? "";
    if (elements.kind) {
      elements.kind.value = state.kind;
      elements.on.value = state.on;
      elements.on.disabled = !state.kind;
    }
    elements.text.value = state.text;
    letters.forEach((letter, at) => {
      const side = state.sides[at];
      elements["side" + letter].value = side;
      if (!hasScores) return;
      const from = Model.from(state, side);
      const top = data.sides[side].top / data.scoreUnits;
      const steps = 100 / 10 ** Math.floor(Math.log10(top)); // to a score of 1
      const low = Math.ceil((steps * data.sides[side].floor) / data.scoreUnits) / steps;
      Object.assign(elements["from" + letter], { max: top, step: 1 / steps, min: Math.min(top - 1 / steps, low) });
      elements["from" + letter].value = score(from);
      elements["from" + letter].setAttribute("aria-valuetext", score(from));
      form.querySelector(`output[name="score${letter}"]`).value = score(from);
    });
    if (hasScores) form.querySelector("[data-best]").disabled = !Object.keys(state.from).length;
    write();
  };
  const write = () => {
    const usual = fresh();
    const link = new URLSearchParams();
    for (const name of ["sort", "kind", "on", "text"]) if (state[name] !== usual[name]) link.set(name, state[name]);
    if (state.cls !== null) link.set("class", data.classes[state.cls]);
    letters.forEach((letter, at) => {
      const side = state.sides[at];
      if (side !== usual.sides[at]) link.set(letter.toLowerCase(), data.sides[side].name);
      if (state.from[side] !== undefined) link.set(letter.toLowerCase() + "-from", score(state.from[side]));
    });
    if (state.page) link.set("page", state.page + 1);
    if (state.image) link.set("image", state.image);
    const text = link.toString();
    if (!text && !location.hash.startsWith("#images&")) return;
    try {
      history.replaceState(null, "", text ? `#images&${text}` : "#images");
    } catch { /* a frame that may not change its address: the page works without */ }
  };
  const readAddress = () => {
    if (!location.hash.startsWith("#images&")) return false;
    const link = new URLSearchParams(location.hash.slice("#images&".length));
    const offered = (name) => [...(form.elements[name]?.options ?? [])].map((option) => option.value);
    Object.assign(state, fresh());
    for (const name of ["sort", "kind", "on"]) if (offered(name).includes(link.get(name))) state[name] = link.get(name);
    state.text = link.get("text") ?? "";
    const cls = data.classes.indexOf(link.get("class"));
    state.cls = cls < 0 ? null : cls;
    letters.forEach((letter, at) => {
      const side = data.sides.findIndex((one) => one.name === link.get(letter.toLowerCase()));
      if (side >= 0) state.sides[at] = side;
      const from = parseFloat(link.get(letter.toLowerCase() + "-from"));
      if (hasScores && from >= 0 && from <= data.sides[state.sides[at]].top / data.scoreUnits) state.from[state.sides[at]] = Math.round(from * data.scoreUnits);
    });
    if (new Set(state.sides).size < state.sides.length) state.sides = [...data.pair];
    state.page = (parseInt(link.get("page"), 10) || 1) - 1;
    state.image = link.get("image");
    return true;
  };

  // One image at the size of the window; it walks through the list, whatever page it stands on.
  let open = null;
  const enlarge = (item) => {
    if (!item) return;
    open = item;
    const panes = panesOf(item);
    Viewer.show(item, panes, `${item.image.name}, ${items.indexOf(item) + 1} of ${items.length}`);
    panes.querySelectorAll("svg").forEach((svg) => Panes.draw(svg, item, svg.pane, { focusable: true }));
    state.image = item.image.name;
    write();
  };
  Viewer.onWalk((step) => enlarge(items[items.indexOf(open) + step]));
  Viewer.onClose(() => {
    state.image = null;
    const page = Math.floor(items.indexOf(open) / PAGE);
    if (page !== state.page) {
      state.page = page;
      render();
    } else write();
    const card = [...cases.children].find((one) => one.item?.image === open.image);
    card?.querySelector(".enlarge").focus({ preventScroll: true });
    card?.scrollIntoView({ block: "nearest" });
  });
  cases.addEventListener("click", (event) => {
    if (event.target.closest(".enlarge, .panes svg")) enlarge(event.target.closest(".case").item);
  });

  const setUp = () => {
    data.classes.forEach((name, place) => form.elements.cls.append(node("option", { value: place }, name)));
    form.querySelector(".more").open = innerWidth > 600;
    const bar = form.querySelector(".sides");
    letters.forEach((letter) => {
      const options = data.sides.map((side, place) => node("option", { value: place }, side.name));
      const side = node("div", { className: "side" },
        node("label", {}, node("b", {}, letter), " ", node("select", { name: "side" + letter, "aria-label": `side ${letter}` }, ...options)));
      bar.append(side);
      if (!hasScores) return;
      const slider = node("input", { type: "range", name: "from" + letter, "aria-label": `${letter}: boxes shown from this score on` });
      side.append(node("label", {}, node("span", {}, "from score"), slider, node("output", { name: "score" + letter })));
    });
    if (hasScores) bar.append(node("button", { type: "button", "data-best": "" }, "Scores of best F1"));
    Panes.keys(form.querySelector(".keys"), root.parentElement);
  };

  const change = (values) => {
    Object.assign(state, { page: 0 }, values);
    render();
  };
  const setSide = (at, side) => {
    const sides = [...state.sides];
    const other = sides.indexOf(side);
    if (other >= 0) sides[other] = sides[at]; // a side chosen twice: the two change places
    sides[at] = side;
    change({ sides });
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => {
    const { name, value } = target;
    const at = letters.indexOf(name.slice(-1));
    if (name.startsWith("side")) setSide(at, Number(value));
    else if (name.startsWith("from")) change({ from: { ...state.from, [state.sides[at]]: Math.round(value * data.scoreUnits) } });
    else if (name === "cls") change({ cls: value === "" ? null : Number(value) });
    else if (name) change({ [name]: value });
  });
  form.addEventListener("click", (event) => event.target.closest("[data-best]") && change({ from: {} }));
  root.addEventListener("click", (event) => {
    const step = event.target.closest("[data-page]")?.dataset.page;
    if (!step) return;
    state.page += Number(step);
    render();
    form.scrollIntoView({ block: "start" });
  });
  document.getElementById("browser-reset").addEventListener("click", () => change({ cls: null, kind: "", on: "either", text: "" }));
  addEventListener("hashchange", () => readAddress() && visit());
  addEventListener("beforeprint", () => [...cases.children].forEach((card) => card.item && drawCard(card)));

  // What the address asks for: a view of the list, perhaps with one image open.
  const visit = () => {
    render();
    form.scrollIntoView();
    enlarge(items.find((item) => item.image.name === state.image));
  };
  setUp();
  root.hidden = false;
  Panes.follow(cases);
  readAddress() ? visit() : render();
})();
