"use strict";
// The data of the browser of images: what a side finds from a score on, which images a filter keeps, their order.
const Model = (() => {
  const { rows } = Shared;
  const data = Shared.read("browser-data");
  const RIGHT = data.kinds.indexOf("right");
  const EXCUSED = data.kinds.indexOf("excused");

  const toTruth = ([cls, x, y, w, h, aside], index) => ({ cls, x, y, w, h, aside, truth: index });
  const toDetection = ([cls, score, x, y, w, h, kind, truth]) => ({ cls, score, x, y, w, h, kind, truth });
  const images = data.images.map(([name, width, height, truths, found], place) => ({
    place, name, width, height,
    truths: rows(truths, 6, toTruth),
    found: found.map((flat) => rows(flat, 8, toDetection)),
  }));

  const kindOf = (detection) => data.kinds[detection.kind];

  // What side `side` shows of an image from the score `from` on (whole units of score), with its counts and F1.
  const tally = (image, side, from) => {
    const shown = image.found[side].filter((detection) => detection.score >= from);
    const taken = new Set(shown.filter((detection) => detection.kind === RIGHT).map((detection) => detection.truth));
    const missed = image.truths.filter((truth) => !truth.aside && !taken.has(truth.truth));
    const wrong = shown.filter((detection) => detection.kind !== RIGHT && detection.kind !== EXCUSED).length;
    const asked = 2 * taken.size + wrong + missed.length;
    return { shown, missed, right: taken.size, wrong, f1: asked ? (200 * taken.size) / asked : 100 };
  };

  const from = (state, side) => state.from[side] ?? data.sides[side].threshold;
  const tallies = (image, state) => state.sides.map((side) => tally(image, side, from(state, side)));
  const difference = (results) => (results.length > 1 ? results[1].f1 - results[0].f1 : 0);

  // A box concerns a class that it names, or that the object which it is about has.
  const concerns = (image, box, cls) =>
    cls === null || box.cls === cls || (box.truth >= 0 && image.truths[box.truth].cls === cls);
  const boxesOf = (image, result, kind, cls) => {
    const errors = () => result.shown.filter((one) => one.kind !== RIGHT && one.kind !== EXCUSED);
    const choices = { missed: () => result.missed, error: () => [...result.missed, ...errors()] };
    const chosen = choices[kind] ?? (() => result.shown.filter((one) => kindOf(one) === kind));
    return chosen().filter((box) => concerns(image, box, cls));
  };
  const holds = {
    either: (a, b = 0) => a + b > 0,
    a: (a) => a > 0,
    b: (a, b = 0) => b > 0,
    differ: (a, b = a) => a !== b,
  };

  const keeps = (image, results, state) => {
    if (state.text && !image.name.toLowerCase().includes(state.text.toLowerCase())) return false;
    if (state.kind) return holds[state.on](...results.map((one) => boxesOf(image, one, state.kind, state.cls).length));
    if (state.cls === null) return true;
    return [...image.truths, ...results.flatMap((one) => one.shown)].some((box) => box.cls === state.cls);
  };

  const orders = Shared.orders((a, b) => b.image.truths.length - a.image.truths.length);

  // The images that the state's filter keeps, in its order: {image, results, difference, errors, wanted}; `wanted` are the
  // boxes of the kind that is filtered by.
  const list = (state) => {
    const items = images
      .map((image) => {
        const results = tallies(image, state);
        const errors = results.reduce((sum, one) => sum + one.wrong + one.missed.length, 0);
        return { image, results, difference: Shared.rounded(difference(results)), errors };
      })
      .filter((item) => keeps(item.image, item.results, state));
    return Shared.sorted(items, orders[state.sort])
      .map((item) => ({ ...item, sides: [...state.sides], wanted: wantedOf(item, state) }));
  };

  const wantedOf = ({ image, results }, { kind, cls }) =>
    new Set(kind ? results.flatMap((one) => boxesOf(image, one, kind, cls)) : []);

  const overlap = (a, b) => {
    const w = Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x);
    const h = Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y);
    return w > 0 && h > 0 ? (w * h) / (a.w * a.h + b.w * b.h - w * h) : 0;
  };

  return { data, images, photo: Shared.photosOf, kindOf, from, list, overlap, RIGHT, EXCUSED };
})();
