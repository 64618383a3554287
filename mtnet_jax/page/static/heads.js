// How an image is resampled, and the angles of a rotation: what mtnet_jax/data/geometry.py,
// mtnet_jax/rotations.py and mtnet_jax/predict/summary.py do in Python.
// Pure functions; tests/test_page.py compares each with its original.

export const BORDER_GREY = 114;
const DEGREES = 180 / Math.PI;
const GIMBAL_LOCK = 1e-6;
const CAMERA_WITHIN = 25; // degrees
const AWAY_BEYOND = 120;

// The place of a whole image in a square of `size` pixels: in its shape, centred.
export function letterboxPlace({width, height}, size) {
  const scale = size / Math.max(width, height);
  return {scale, left: (size - scale * width) / 2, top: (size - scale * height) / 2};
}

// An image as it lies at a place in a square of `size` pixels, grey round it: size * size * 3 bytes.
// It is {data, width, height} with RGBA bytes, as ImageData. Images that shrink by two or more are averaged down first.
export function resampled(image, size, place) {
  const {width, height} = image;
  const {scale} = place;
  const shrink = Math.floor(1 / scale + 1e-6);
  const small =
    shrink >= 2
      ? averaged(image, Math.max(Math.floor(width / shrink), 1), Math.max(Math.floor(height / shrink), 1))
      : image;
  const across = span(place.left, scale * width, size);
  const down = span(place.top, scale * height, size);
  const shrinks = scale * width <= small.width && scale * height <= small.height;
  // As in Python: where an image that does not grow covers whole pixels its border repeats, else it
  // blends with the grey.
  const whole = across.whole && down.whole && shrinks;
  return whole ? resized(small, size, across, down) : blended(small, size, across, down);
}

// Where an image lies along an axis of the input, and whether that is at whole pixels within it.
function span(start, length, size) {
  const [first, last] = [Math.round(start), Math.round(start + length)];
  const near = Math.abs(first - start) < 1e-6 && Math.abs(last - start - length) < 1e-6;
  return {start, length, first, last, whole: near && first >= 0 && last <= size};
}

// OpenCV's resize to the bit: it weighs neighbours in steps of 1 / 2048 and drops bits on the way.
function resized({data, width, height}, size, across, down) {
  const rgb = new Uint8Array(size * size * 3).fill(BORDER_GREY);
  const columns = fixedTaps(across.last - across.first, width);
  const rows = fixedTaps(down.last - down.first, height);
  const [upper, lower] = [new Int32Array(columns.first.length * 3), new Int32Array(columns.first.length * 3)];
  for (let y = 0; y < rows.first.length; y++) {
    weighRow(data, rows.first[y] * width, columns, upper);
    weighRow(data, rows.second[y] * width, columns, lower);
    let out = 3 * ((down.first + y) * size + across.first);
    for (let k = 0; k < upper.length; k++) {
      const sum = ((rows.near[y] * (upper[k] >> 4)) >> 16) + ((rows.far[y] * (lower[k] >> 4)) >> 16);
      rgb[out++] = (sum + 2) >> 2;
    }
  }
  return rgb;
}

function weighRow(data, start, {first, second, near, far}, row) {
  for (let x = 0, k = 0; x < first.length; x++) {
    const [a, b] = [4 * (start + first[x]), 4 * (start + second[x])];
    for (let c = 0; c < 3; c++) row[k++] = data[a + c] * near[x] + data[b + c] * far[x];
  }
}

// For each of `count` outputs: the two of `length` inputs it lies between, and their weights.
function fixedTaps(count, length) {
  const taps = {first: [], second: [], near: [], far: []};
  for (let i = 0; i < count; i++) {
    const at = Math.fround((i + 0.5) / (count / length) - 0.5);
    const low = Math.floor(at);
    const share = low < 0 || low >= length - 1 ? 0 : Math.fround(at - low);
    taps.first.push(Math.min(Math.max(low, 0), length - 1));
    taps.second.push(Math.min(Math.max(low, 0) + 1, length - 1));
    taps.near.push(Math.round(Math.fround(1 - share) * 2048));
    taps.far.push(Math.round(share * 2048));
  }
  return taps;
}

// An image sampled bilinearly, blended with the grey at its border.
function blended({data, width, height}, size, across, down) {
  const columns = taps(size, across, width);
  const rows = taps(size, down, height);
  const at = (row, column, c) => (row < 0 || column < 0 ? BORDER_GREY : data[4 * (row * width + column) + c]);
  const rgb = new Uint8Array(size * size * 3);
  for (let y = 0, out = 0; y < size; y++) {
    const [upper, lower, v] = [rows.first[y], rows.second[y], rows.weight[y]];
    for (let x = 0; x < size; x++) {
      const [left, right, h] = [columns.first[x], columns.second[x], columns.weight[x]];
      for (let c = 0; c < 3; c++) {
        const above = at(upper, left, c) * (1 - h) + at(upper, right, c) * h;
        const below = at(lower, left, c) * (1 - h) + at(lower, right, c) * h;
        rgb[out++] = Math.round(above * (1 - v) + below * v);
      }
    }
  }
  return rgb;
}

// For each pixel of the input along an axis: the two pixels of an image that it lies between (-1:
// the grey), and the weight of the second.
function taps(size, {start, length}, pixels) {
  const within = (index) => (index >= 0 && index < pixels ? index : -1);
  const found = {first: new Int32Array(size), second: new Int32Array(size), weight: new Float32Array(size)};
  for (let i = 0; i < size; i++) {
    const at = ((i + 0.5 - start) * pixels) / length - 0.5;
    const low = Math.floor(at);
    found.first[i] = within(low);
    found.second[i] = within(low + 1);
    found.weight[i] = at - low;
  }
  return found;
}

// An image averaged down over areas, parts of pixels counted in part (OpenCV's INTER_AREA).
function averaged({data, width, height}, newWidth, newHeight) {
  const columns = shares(width, newWidth);
  const rows = shares(height, newHeight);
  const area = (width / newWidth) * (height / newHeight);
  const sums = new Float32Array(newWidth * 3);
  const small = new Uint8Array(newWidth * newHeight * 4);
  for (let j = 0, r = 0; j < newHeight; j++) {
    sums.fill(0);
    for (let y = rows.first[j]; y < rows.end[j]; y++) addRow(data, y * width, columns, rows.share[r++], sums);
    for (let x = 0, k = 0, out = 4 * j * newWidth; x < newWidth; x++, out += 4) {
      for (let c = 0; c < 3; c++) small[out + c] = Math.round(sums[k++] / area);
    }
  }
  return {data: small, width: newWidth, height: newHeight};
}

function addRow(data, start, {first, end, share}, weight, sums) {
  for (let x = 0, k = 0; x < first.length; x++) {
    let red = 0;
    let green = 0;
    let blue = 0;
    for (let i = first[x]; i < end[x]; i++, k++) {
      const source = 4 * (start + i);
      red += share[k] * data[source];
      green += share[k] * data[source + 1];
      blue += share[k] * data[source + 2];
    }
    sums[3 * x] += weight * red;
    sums[3 * x + 1] += weight * green;
    sums[3 * x + 2] += weight * blue;
  }
}

// For each of `count` outputs: the first and the end of the `length` inputs that it covers, and one
// after another, how much of each.
function shares(length, count) {
  const step = length / count;
  const found = {first: [], end: [], share: []};
  for (let k = 0; k < count; k++) {
    const [from, to] = [k * step, Math.min((k + 1) * step, length)];
    const [first, end] = [Math.floor(from + 1e-6), Math.ceil(to - 1e-6)];
    for (let i = first; i < end; i++) found.share.push(Math.min(i + 1, to) - Math.max(i, from));
    found.first.push(first);
    found.end.push(end);
  }
  return found;
}

// Yaw, pitch, roll in degrees, canonical (docs/conventions.md), of nine numbers row by row.
export function euler(r) {
  const cosYaw = Math.hypot(r[0], r[1]);
  if (cosYaw < GIMBAL_LOCK) {
    const half = Math.atan2(r[3], r[4]) / 2;
    return degrees(Math.atan2(r[2], cosYaw), -Math.sign(r[2]) * half, half);
  }
  const [first, second] = [1, -1].map((s) => [
    Math.atan2(r[2], s * cosYaw),
    Math.atan2(s * r[5], s * r[8]),
    Math.atan2(-s * r[1], s * r[0]),
  ]);
  const quarter = Math.PI / 2 + 1e-4;
  const upright = ([, pitch, roll]) => Math.abs(pitch) < quarter && Math.abs(roll) < quarter;
  const useFirst = upright(first) || (!upright(second) && Math.abs(first[1]) < quarter);
  return degrees(...(useFirst ? first : second));
}

// Where a face looks, as mtnet_jax/predict/summary.py has it: camera, left, right, up, down or away.
export function direction(r) {
  const [x, y, z] = [-r[2], -r[5], -r[8]]; // out of the face
  const off = Math.atan2(Math.hypot(x, y), -z) * DEGREES;
  if (off <= CAMERA_WITHIN) return "camera";
  if (off > AWAY_BEYOND) return "away";
  if (Math.abs(x) >= Math.abs(y)) return x < 0 ? "left" : "right";
  return y < 0 ? "up" : "down";
}

function degrees(yaw, pitch, roll) {
  return {yaw: yaw * DEGREES, pitch: pitch * DEGREES, roll: roll * DEGREES};
}
