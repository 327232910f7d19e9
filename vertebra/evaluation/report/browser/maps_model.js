"use strict";
// The data of the browser of images of segmenters: each side's IoU in an image, which images a filter keeps, their order.
const Model = (() => {
  const { rows } = Shared;
  const data = Shared.read("browser-data");
  const sides = data.sides.length;
  const toClass = ([cls, truly, ...counts]) => ({ cls, truly, sides: rows(counts, 2, ([given, right]) => ({ given, right })) });
  const images = data.images.map(([name, width, height, classes, pairs, ignored], place) => ({
    place, name, width, height, ignored,
    classes: rows(classes, 2 + 2 * sides, toClass).sort((a, b) => b.truly - a.truly),
    pairs: new Map(rows(pairs, 5, ([a, b, first, second, neither]) => [`${a},${b}`, [first, second, neither]])),
  }));

  const photo = (image) => Shared.photosOf(image)[0];
  const map = (image, which) => Shared.photosOf(image)[which === "truth" ? 1 : 2 + which];

  // IoU of a class in an image; null where neither truth nor answer has it.
  const iou = (row, side) => {
    const { given, right } = row.sides[side];
    const union = row.truly + given - right;
    return union ? (100 * right) / union : null;
  };
  const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : 100);
  const sum = (rows, of) => rows.reduce((total, row) => total + of(row), 0);
  // What is compared: the mean over classes, or the IoU of the one that is filtered by.
  const tally = (image, side, cls) => {
    const counted = sum(image.classes, (row) => row.truly);
    const right = sum(image.classes, (row) => row.sides[side].right);
    const ious = image.classes.filter((row) => cls === null || row.cls === cls).map((row) => iou(row, side)).filter((value) => value !== null);
    return { score: mean(ious), accuracy: counted ? (100 * right) / counted : 100 };
  };
  // Of two sides [only the first right, only the second, neither], in percent of the pixels that count.
  const shares = (image, [a, b = a]) => {
    const [first, second, neither] = image.pairs.get(`${Math.min(a, b)},${Math.max(a, b)}`);
    const all = image.width * image.height - image.ignored || 1;
    return (a <= b ? [first, second, neither] : [second, first, neither]).map((count) => (100 * count) / all);
  };

  const orders = Shared.orders((a, b) => b.errors - a.errors);
  const keeps = (image, { text, cls, sides }) =>
    image.name.toLowerCase().includes(text.toLowerCase()) &&
    (cls === null || image.classes.some((row) => row.cls === cls && (row.truly || sides.some((side) => row.sides[side].given))));

  // The images that the state's filter keeps, in its order: {image, results, difference, errors, sides, cls}.
  const list = (state) => {
    const items = images
      .filter((image) => keeps(image, state))
      .map((image) => {
        const results = state.sides.map((side) => tally(image, side, state.cls));
        const difference = results.length > 1 ? results[1].score - results[0].score : 0;
        const errors = results.reduce((total, one) => total + 100 - one.score, 0);
        return { image, results, errors, difference: Shared.rounded(difference), sides: [...state.sides], cls: state.cls };
      });
    return Shared.sorted(items, orders[state.sort]);
  };

  return { data, list, photo, map, iou, shares };
})();
