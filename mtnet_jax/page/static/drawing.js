// Heads drawn on a canvas, in the colours and proportions of mtnet_jax/predict/draw.py.

const BOX = "rgb(255 205 0)";
const RED = "rgb(235 50 40)";
const GREEN = "rgb(40 200 60)";
const BLUE = "rgb(30 110 255)";
const DARK = "rgb(20 20 20)";
const AXIS_LENGTH = 0.62; // of the box's mean side
const CUBE_SIDE = 0.8;
const MOST_HIDDEN = 0.25; // of a head's box, by the label of any

// Corners of a cube of side 2 in head axes, and its sides as corner indices with outward normals;
// the first is the face.
const CORNERS = [-1, 1].flatMap((x) => [-1, 1].flatMap((y) => [-1, 1].map((z) => [x, y, z])));
const SIDES = [
  [[0, 2, 6, 4], [0, 0, -1]],
  [[1, 3, 7, 5], [0, 0, 1]],
  [[0, 1, 3, 2], [-1, 0, 0]],
  [[4, 5, 7, 6], [1, 0, 0]],
  [[0, 1, 5, 4], [0, -1, 0]],
  [[2, 3, 7, 6], [0, 1, 0]],
];

// Draws the heads of `headsInView` over what the canvas shows; each with its number in the list.
// Heads that cover much come first, so that small ones stay visible.
export function drawHeads(context, heads, {cube}) {
  const {width, height} = context.canvas;
  const line = 1 + Math.max(width, height) / 480;
  const numbered = heads.map((head, index) => ({...head, number: index + 1}));
  numbered.sort((a, b) => area(b.box) - area(a.box));
  context.lineJoin = "round";
  numbered.forEach(({box, rotation}) => {
    stroke(context, corners(box), BOX, fitted(line, middle(box).size), true);
    (cube ? drawCube : drawAxes)(context, box, rotation, line);
  });
  drawLabels(context, numbered);
}

function drawAxes(context, box, rotation, line) {
  const {x, y, size} = middle(box);
  const axes = [0, 1, 2].map((k) => [0, 3, 6].map((row) => rotation[row + k] * (k === 2 ? -1 : 1)));
  const colours = [RED, GREEN, BLUE];
  const width = fitted(line + 1, size);
  // The tip that lies furthest away first: nearer axes cover it.
  const order = [0, 1, 2].sort((a, b) => axes[b][2] - axes[a][2]);
  for (const k of order) {
    const tip = [x + AXIS_LENGTH * size * axes[k][0], y + AXIS_LENGTH * size * axes[k][1]];
    stroke(context, [[x, y], tip], DARK, width + 2, false);
    stroke(context, [[x, y], tip], colours[k], width, false);
  }
}

function drawCube(context, box, rotation, line) {
  const {x, y, size} = middle(box);
  const turned = (v) => [0, 3, 6].map((row) => v[0] * rotation[row] + v[1] * rotation[row + 1] + v[2] * rotation[row + 2]);
  const points = CORNERS.map((corner) => {
    const [dx, dy] = turned(corner);
    return [x + (CUBE_SIDE / 2) * size * dx, y + (CUBE_SIDE / 2) * size * dy];
  });
  const width = fitted(line, size);
  for (const visible of [false, true]) {
    for (const [number, [indices, normal]] of SIDES.entries()) {
      // A side is seen when its outward normal points to the camera, against +z.
      if (turned(normal)[2] < 0 !== visible) continue;
      const outline = indices.map((i) => points[i]);
      const colour = number === 0 ? BLUE : RED;
      context.globalAlpha = visible ? 1 : 0.45;
      if (number === 0) fill(context, outline, BLUE, visible ? 0.3 : 0.12);
      if (visible) stroke(context, outline, DARK, width + 2, true);
      stroke(context, outline, colour, width, true);
    }
  }
  context.globalAlpha = 1;
}

// Number and score beside each box, where they cover least of the heads and other labels; none that
// would hide another one, or a good part of a head: the list has it too.
function drawLabels(context, heads) {
  const {width, height} = context.canvas;
  const size = Math.min(Math.max(Math.max(width, height) / 45, 11), 40);
  const high = Math.round(1.3 * size);
  context.font = `${size}px system-ui, sans-serif`;
  const boxes = heads.map(({box}) => box);
  const labels = [];
  for (const {box, number, score} of heads) {
    // In a crowd the number has to do: there may be room for it where both would cover heads.
    for (const text of [`#${number} ${score.toFixed(2)}`, `#${number}`]) {
      const wide = context.measureText(text).width + size / 2;
      if (wide > width) continue;
      const place = freePlace(box, wide, high, context.canvas, [...boxes, ...labels]);
      const hides =
        labels.some((other) => overlap(place, other) > 0) ||
        boxes.some((other) => overlap(place, other) > MOST_HIDDEN * area(other));
      if (hides) continue;
      labels.push(place);
      context.fillStyle = "rgb(20 20 20 / 0.7)";
      context.fillRect(place[0], place[1], wide, high);
      context.fillStyle = "#fff";
      context.fillText(text, place[0] + size / 4, place[1] + size);
      break;
    }
  }
}

// Where a label goes: above, below, right or left of the box, inside the canvas; the first of those
// that cover least of what is taken.
function freePlace([left, top, right, bottom], wide, high, {width, height}, taken) {
  const corners = [
    [left, top - high - 2],
    [left, bottom + 2],
    [right - wide, top - high - 2],
    [right - wide, bottom + 2],
    [right + 2, top],
    [left - wide - 2, top],
    [right + 2, bottom - high],
    [left - wide - 2, bottom - high],
  ];
  const inside = (at, room) => Math.floor(Math.max(Math.min(at, room), 0));
  let [best, least] = [null, Infinity];
  for (const corner of corners) {
    const [x, y] = [inside(corner[0], width - wide), inside(corner[1], height - high)];
    const place = [x, y, x + wide, y + high];
    const covered = taken.reduce((sum, other) => sum + overlap(place, other), 0);
    if (covered < least) [best, least] = [place, covered];
  }
  return best;
}

function overlap(a, b) {
  const across = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const down = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(across, 0) * Math.max(down, 0);
}

function area([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}

function stroke(context, points, colour, width, closed) {
  path(context, points, closed);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

function fill(context, points, colour, opacity) {
  const before = context.globalAlpha;
  path(context, points, true);
  context.fillStyle = colour;
  context.globalAlpha = opacity;
  context.fill();
  context.globalAlpha = before;
}

function path(context, points, closed) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (closed) context.closePath();
}

function corners([left, top, right, bottom]) {
  return [[left, top], [right, top], [right, bottom], [left, bottom]];
}

function middle([left, top, right, bottom]) {
  return {x: (left + right) / 2, y: (top + bottom) / 2, size: (right - left + bottom - top) / 2};
}

// Thinner lines for a head so small that it would vanish behind them.
function fitted(width, size) {
  return Math.min(Math.max(size / 16, 1), width);
}
