// Looks at an image: what a square of the input shows, the heads found there, and which heads are
// looked at once more, as mtnet_jax/predict/placing.py, far_look.py, turned_look.py, tiles.py and
// close_look.py have it. Pure functions; a look is {place, side, left, top, mirrored, quarters}: how the image lies
// in a square of `side` pixels, which is then mirrored, or turned clockwise by quarters of a circle,
// and where that lies in the input.

import {BORDER_GREY, euler, letterboxPlace, resampled} from "mtnet/heads";

// The first look: all of the image in all of the input.
export function wholeView(image, size) {
  return {place: letterboxPlace(image, size), side: size, left: 0, top: 0, mirrored: false, quarters: 0};
}

// An input of size * size * 3 bytes with the image as each of the views has it.
export function inputOfViews(image, views, size) {
  const rgb = new Uint8Array(size * size * 3).fill(BORDER_GREY);
  for (const view of views) {
    const {side, left, top, mirrored, quarters} = view;
    const part = shownPart(image, view);
    const square = resampled(part.image, side, part.place);
    const at = (x, y) => {
      const [column, row] = turnedBack(x, y, side - 1, quarters);
      return 3 * (row * side + (mirrored ? side - 1 - column : column));
    };
    const [start, across, down] = [at(0, 0), at(1, 0) - at(0, 0), at(0, 1) - at(0, 0)];
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const from = start + x * across + y * down;
        const to = 3 * ((top + y) * size + left + x);
        for (let c = 0; c < 3; c++) rgb[to + c] = square[from + c];
      }
    }
  }
  return rgb;
}

// Where a point of a square whose coordinates end at `last` was before it was turned clockwise.
function turnedBack(x, y, last, quarters) {
  return quarters === 0 ? [x, y] : turnedBack(y, last - x, last, quarters - 1);
}

// The part of an image that a view shows, with a margin: {image, place}.
function shownPart({data, width, height}, {place, side}) {
  const margin = 2 / Math.min(place.scale, 1);
  const first = (start) => Math.floor(Math.max(-start / place.scale - margin, 0));
  const end = (start, length) => Math.ceil(Math.min((side - start) / place.scale + margin, length));
  const [left, top] = [first(place.left), first(place.top)];
  const [right, bottom] = [end(place.left, width), end(place.top, height)];
  if (left === 0 && top === 0 && right === width && bottom === height) return {image: {data, width, height}, place};
  const part = new Uint8ClampedArray((right - left) * (bottom - top) * 4);
  for (let y = top; y < bottom; y++) {
    part.set(data.subarray(4 * (y * width + left), 4 * (y * width + right)), 4 * (y - top) * (right - left));
  }
  const {scale} = place;
  return {
    image: {data: part, width: right - left, height: bottom - top},
    place: {scale, left: place.left + scale * left, top: place.top + scale * top},
  };
}

// The heads that a view shows, by falling score: {box, score, label, rotation, yaw, pitch, roll,
// scale}, the last one how many pixels of the input show one of the image.
//
// outputs: boxes (100, 4), scores, labels, rotations (100, 3, 3) of the network as flat arrays;
// heads of score 0 fill them up. Boxes are in pixels of the image and are clipped to it.
export function headsInView({boxes, scores, labels, rotations}, view, {width, height}) {
  const {place, side, left, top, mirrored, quarters} = view;
  const heads = [];
  for (let i = 0; i < scores.length; i++) {
    if (!(scores[i] > 0)) continue;
    const [x, y] = [[boxes[4 * i] - left, boxes[4 * i + 2] - left], [boxes[4 * i + 1] - top, boxes[4 * i + 3] - top]];
    const inside = ([from, to]) => from + to >= 0 && from + to < 2 * side;
    if (!inside(x) || !inside(y)) continue;
    const corners = [0, 1].map((k) => turnedBack(x[k], y[k], side, quarters));
    const [across, down] = [0, 1].map((axis) => corners.map((corner) => corner[axis]).sort((a, b) => a - b));
    const [x0, x1] = mirrored ? [side - across[1], side - across[0]] : across;
    const inImage = (at, start, length) => Math.min(Math.max((at - start) / place.scale, 0), length);
    const box = [
      inImage(x0, place.left, width),
      inImage(down[0], place.top, height),
      inImage(x1, place.left, width),
      inImage(down[1], place.top, height),
    ];
    if (box[2] <= box[0] || box[3] <= box[1]) continue;
    const seen = rotationTurnedBack(Array.from(rotations.slice(9 * i, 9 * i + 9)), quarters);
    const rotation = mirrored ? mirroredRotation(seen) : seen;
    const {scale} = place;
    heads.push({box, score: scores[i], label: Number(labels[i]), rotation, ...euler(rotation), scale});
  }
  return heads;
}

// Whether the first look found a large head, or no plain one.
export function isWorthAFarLook(heads, image, {sure, plain, large}) {
  const isLarge = (head) => head.score >= sure && extent(head, image) > large;
  return heads.some(isLarge) || !heads.some(({score}) => score >= plain);
}

// Two views of the image side by side, the second mirrored.
export function farViews(image, size, {side}) {
  const half = Math.floor(size / 2);
  const view = {
    place: letterboxPlace(image, side),
    side,
    left: Math.floor((half - side) / 2),
    top: Math.floor((size - side) / 2),
    mirrored: false,
    quarters: 0,
  };
  return [view, {...view, left: half + view.left, mirrored: true}];
}

// Heads of several looks, each once: means, weighted by the scores.
export function meanOfLooks(looks, iouThreshold) {
  let left = looks.flatMap((heads, look) => heads.map((head) => ({head, look})));
  left.sort((a, b) => b.head.score - a.head.score);
  const means = [];
  while (left.length) {
    const [first] = left;
    const same = left.filter((other) => other === first || overlap(first.head.box, other.head.box) > iouThreshold);
    left = left.filter((other) => !same.includes(other));
    const members = looks
      .map((_, look) => same.find((other) => other.look === look))
      .filter(Boolean)
      .map(({head}) => head);
    const score = members.reduce((sum, head) => sum + head.score, 0) / looks.length;
    const {label, scale} = first.head;
    means.push({...mean(members, members.map((head) => head.score)), score, label, scale});
  }
  return means.sort((a, b) => b.score - a.score);
}

// Heads of the first look and the far one, each once, by falling score: small ones of the first,
// large ones of the second, those between of the one that is surer.
export function joinLooks(near, far, image, {largestNear, smallestFar}, iouThreshold) {
  const both = [
    ...near.filter((head) => extent(head, image) <= largestNear),
    ...far.filter((head) => extent(head, image) >= smallestFar),
  ];
  return eachOnce(both, iouThreshold);
}

// Whether there is no plain head, or a large one of which the network is not very sure: it may lie.
export function isWorthATurnedLook(heads, image, {far, turned}) {
  const large = heads.filter((head) => extent(head, image) > far.large);
  return isWorthAFarLook(heads, image, far) && !large.some(({score}) => score >= turned.sure);
}

// Views of the image as it is and turned, in quarters of an input.
export function turnedViews(image, size, {far, turned}) {
  const {side} = far;
  const half = Math.floor(size / 2);
  const margin = Math.floor((half - side) / 2);
  return [0, ...turned.turns.map(({quarters}) => quarters)].map((quarters, n) => ({
    place: letterboxPlace(image, side),
    side,
    left: half * (n % 2) + margin,
    top: half * Math.floor(n / 2) + margin,
    mirrored: false,
    quarters,
  }));
}

// Heads so far, with the large ones of the turned views that are surer than the one that is not.
export function joinTurned(heads, [upright, ...turnedLooks], image, {far, turned}, iouThreshold) {
  const over = (head) => (other) => overlap(head.box, other.box) > iouThreshold;
  const isSurer = (head, least) =>
    head.score > Math.max(least, ...upright.filter(over(head)).map(({score}) => score));
  const isLarge = (head) => extent(head, image) >= far.smallestFar;
  const surer = turnedLooks.map((look, n) =>
    look.filter((head) => isLarge(head) && isSurer(head, turned.turns[n].least)),
  );
  const lying = eachOnce(surer.flat(), iouThreshold);
  const least = (head) => (isLarge(head) ? turned.sameIou : iouThreshold);
  const stays = (head) => !lying.some(({box}) => overlap(head.box, box) > least(head));
  return eachOnce([...heads.filter(stays), ...lying], iouThreshold);
}

// Pixels of the side of the tiles in which a large image with small heads is looked at; 0: in none.
export function tileSide(heads, image, size, {sure, plain, small, worth, three, whole}) {
  const longer = Math.max(image.width, image.height);
  const isSmall = (head) => head.score >= sure && size * extent(head, image) <= small;
  const isPlain = ({score}) => score >= plain;
  if (longer < worth * size || (!heads.some(isSmall) && heads.some(isPlain))) return 0;
  const along = longer < three * size ? 2 : 3;
  return Math.ceil((longer * (1 + whole * (along - 1))) / along);
}

// Where the tiles of an image lie, {left, top, right, bottom} each, evenly spread.
export function tileWindows(image, side, tiles) {
  const {width, height} = image;
  const step = side * (1 - tileOverlap(image, side, tiles));
  return tileStarts(height, side, step).flatMap((top) =>
    tileStarts(width, side, step).map((left) => {
      return {left, top, right: Math.min(left + side, width), bottom: Math.min(top + side, height)};
    }),
  );
}

function tileOverlap({width, height}, side, {whole, mostOverlap}) {
  return Math.min((whole * Math.max(width, height)) / side, mostOverlap);
}

function tileStarts(length, side, step) {
  if (length <= side) return [0];
  const gaps = Math.ceil((length - side) / step - 1e-6);
  const evenRound = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value)); // as NumPy
  return Array.from({length: gaps + 1}, (_, i) => evenRound((i * (length - side)) / gaps));
}

// All of an input that shows a tile.
export function tileView({left, top, right, bottom}, size) {
  const shown = letterboxPlace({width: right - left, height: bottom - top}, size);
  const {scale} = shown;
  const place = {scale, left: shown.left - scale * left, top: shown.top - scale * top};
  return {place, side: size, left: 0, top: 0, mirrored: false, quarters: 0};
}

// Heads of all looks, each once: small ones of the tiles, large ones of the whole image, those
// between of the look that is surer. `found` has the heads of each tile.
export function joinTiles(heads, windows, found, image, side, tiles, iouThreshold) {
  const smallest =
    (tileOverlap(image, side, tiles) * side - 2 * tiles.border - 1) / Math.max(image.width, image.height);
  const large = heads.filter((head) => extent(head, image) > smallest);
  const [sure, doubtful] = [true, false].map((is) => large.filter(({score}) => score >= tiles.plain === is));
  const isUncut = (number) => (head) => isWhole(head, windows[number], image, tiles);
  const cut = found.flatMap((each, number) => each.filter((head) => !isUncut(number)(head)));
  const small = found.map((each, number) =>
    each.filter((head) => isUncut(number)(head) && extent(head, image) < tiles.largest),
  );
  const parts = withoutCutOnes([sure, ...small], [heads, ...found], tiles, iouThreshold);
  const joined = eachOnce(parts.flat().map((head) => asSureAsCutOnes(head, cut, iouThreshold)), iouThreshold);
  return eachOnce([...joined, ...withoutCrowds(doubtful, joined, tiles)], iouThreshold);
}

// A head with the score of a tile that cuts it, where that is surer of it.
function asSureAsCutOnes(head, cut, iouThreshold) {
  const same = cut.filter((other) => overlap(head.box, other.box) > iouThreshold);
  return {...head, score: Math.max(head.score, ...same.map(({score}) => score))};
}

// Doubtful boxes but for those that hold several plain heads: a crowd may look like one.
function withoutCrowds(doubtful, heads, {inside, plain, crowd}) {
  const isHeldBy = (large) => ({box, score}) => score >= plain && shared(large.box, box) > inside * area(box);
  return doubtful.filter((large) => heads.filter(isHeldBy(large)).length < crowd);
}

// Whether the border of a tile does not cut a head; where the tile ends with the image nothing is.
function isWhole({box}, {left, top, right, bottom}, {width, height}, {border}) {
  return (
    (left === 0 || box[0] - left >= border) &&
    (top === 0 || box[1] - top >= border) &&
    (right === width || right - box[2] >= border) &&
    (bottom === height || bottom - box[3] >= border)
  );
}

// Heads of several looks without what some show of heads that others show whole. A look that shows
// a head there beside the larger one cuts nothing, nor does what it hardly sees. `looks` has all
// heads of each look, `parts` those that are left.
function withoutCutOnes(parts, looks, {inside, larger, sure}, iouThreshold) {
  const plainly = looks.map((look) => look.filter(({score}) => score >= sure));
  const isCutBy = (head, number) => (other) =>
    area(other.box) > larger * area(head.box) &&
    shared(head.box, other.box) > inside * area(head.box) &&
    other.score >= Math.min(head.score, sure) &&
    !plainly[number].some(
      ({box}) => box.some((value, k) => value !== other.box[k]) && overlap(head.box, box) > iouThreshold,
    );
  return parts.map((part) =>
    part.filter((head) => !parts.some((others, number) => others !== part && others.some(isCutBy(head, number)))),
  );
}

// The heads that are looked at again from close by, a list for each input: {head, view} each, the
// number of the head, and the square that shows it. Squares that are left over show heads mirrored.
export function closeInputs(heads, image, size, close) {
  const {sure, square, part, gain, most} = close;
  const pixels = (i) => pixelsShown(heads[i], image, size);
  const again = [...heads.keys()].filter((i) => heads[i].score >= sure).sort((a, b) => pixels(a) - pixels(b));
  const sideOf = (count) => {
    const inOne = count && Math.ceil(count / Math.ceil(count / most));
    return Math.floor(size / Math.max(Math.floor(size / square), Math.ceil(Math.sqrt(inOne)), 1));
  };
  while (again.length && pixels(again.at(-1)) * gain > part * sideOf(again.length)) again.pop();
  again.sort((a, b) => a - b);
  const side = sideOf(again.length);
  const across = Math.floor(size / side);
  return inGroups(again, Math.ceil(again.length / most)).map((group) => {
    const shown = [false, true].flatMap((mirrored) => group.map((head) => ({head, mirrored})));
    return shown.slice(0, across ** 2).map(({head, mirrored}, number) => {
      const [left, top] = [(number % across) * side, Math.floor(number / across) * side];
      return {head, view: {place: closePlace(heads[head], side, part), side, left, top, mirrored, quarters: 0}};
    });
  });
}

// Lists of as good as equal length, the longer ones first, as NumPy's array_split.
function inGroups(values, count) {
  const [least, longer] = [Math.floor(values.length / count), values.length % count];
  const start = (n) => n * least + Math.min(n, longer);
  return Array.from({length: count}, (_, n) => values.slice(start(n), start(n + 1)));
}

// Pixels of the input that a head's longer side had so far: in the first look, or in a tile, if it
// shows more.
function pixelsShown(head, image, size) {
  return Math.max(size * extent(head, image), head.scale * longerSide(head));
}

// How the image lies in a square of `side` pixels that shows a head in its middle.
function closePlace({box}, side, part) {
  const scale = (part * side) / Math.max(box[2] - box[0], box[3] - box[1], 1);
  return {
    scale,
    left: side / 2 - (scale * (box[0] + box[2])) / 2,
    top: side / 2 - (scale * (box[1] + box[3])) / 2,
  };
}

// All heads, those of the squares with what was found there: a list of heads each.
export function refinedHeads(heads, squares, found, image, size, {sameIou, part}) {
  return heads.map((head, i) => {
    const looks = squares
      .map((square, number) => square.head === i && found[number].find((other) => overlap(head.box, other.box) > sameIou))
      .filter(Boolean);
    if (!looks.length) return head;
    const first = pixelsShown(head, image, size) / (part * squares[0].view.side);
    return {...head, ...mean([head, ...looks], [first, ...looks.map(() => 1)])};
  });
}

// By falling score; what overlaps a surer head by more than the threshold is left out.
export function eachOnce(heads, iouThreshold) {
  const kept = [];
  for (const head of [...heads].sort((a, b) => b.score - a.score)) {
    if (!kept.some((other) => overlap(head.box, other.box) > iouThreshold)) kept.push(head);
  }
  return kept;
}

function mean(heads, weights) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const of = (name) =>
    heads[0][name].map((_, k) => heads.reduce((sum, head, i) => sum + (weights[i] / total) * head[name][k], 0));
  const rotation = nearestRotation(of("rotation")) ?? heads[0].rotation;
  return {box: of("box"), rotation, ...euler(rotation)};
}

// The rotation nearest to a mean of rotations, nine numbers row by row: Newton's iteration for the
// polar decomposition, X <- (X + X^-T) / 2. Looks that disagree about everything may have a mean to
// which a mirror image is nearest: undefined then.
function nearestRotation(matrix) {
  let r = matrix;
  for (let step = 0; step < 30; step++) {
    const cofactors = [0, 1, 2].flatMap((i) => [0, 1, 2].map((j) => cofactor(r, i, j)));
    const determinant = r[0] * cofactors[0] + r[1] * cofactors[1] + r[2] * cofactors[2];
    if (step === 0 && determinant <= 0) return undefined;
    const next = r.map((value, k) => (value + cofactors[k] / determinant) / 2);
    const change = Math.max(...next.map((value, k) => Math.abs(value - r[k])));
    r = next;
    if (change < 1e-12) break;
  }
  return r;
}

function cofactor(r, row, column) {
  const [a, b] = [(row + 1) % 3, (row + 2) % 3];
  const [c, d] = [(column + 1) % 3, (column + 2) % 3];
  return r[3 * a + c] * r[3 * b + d] - r[3 * a + d] * r[3 * b + c];
}

// As mtnet_jax/rotations.py `mirror`: M R M with M = diag(-1, 1, 1).
function mirroredRotation(r) {
  return r.map((value, k) => ([1, 2, 3, 6].includes(k) ? -value : value));
}

// As mtnet_jax/rotations.py `turn` by so many quarters of a circle against the clock: Rz(-90) R.
function rotationTurnedBack(r, quarters) {
  if (quarters === 0) return r;
  return rotationTurnedBack([r[3], r[4], r[5], -r[0], -r[1], -r[2], r[6], r[7], r[8]], quarters - 1);
}

function extent(head, {width, height}) {
  return longerSide(head) / Math.max(width, height);
}

function longerSide({box}) {
  return Math.max(box[2] - box[0], box[3] - box[1]);
}

function overlap(a, b) {
  const both = shared(a, b);
  return both && both / (area(a) + area(b) - both);
}

function shared(a, b) {
  const across = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const down = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return across <= 0 || down <= 0 ? 0 : across * down;
}

function area(box) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}
