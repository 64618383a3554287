// The exported network in onnxruntime-web: from an image to heads.

import {
  closeInputs,
  eachOnce,
  farViews,
  headsInView,
  inputOfViews,
  isWorthAFarLook,
  isWorthATurnedLook,
  joinLooks,
  joinTiles,
  joinTurned,
  meanOfLooks,
  refinedHeads,
  tileSide,
  tileView,
  tileWindows,
  turnedViews,
  wholeView,
} from "mtnet/looks";

// Opens the network. `files` gives the runtime and the model: from beside the page, or from inside
// it (`--single-file`). Returns {detect, threads}.
export async function openNetwork(settings) {
  const files = embedded("model") ? insideThePage() : besideThePage(settings);
  const ort = await files.runtime();
  // Threads share memory, which browsers allow only on isolated pages (docs/page.md).
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 4) : 1;
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(await files.model(), {executionProviders: ["wasm"]});
  const scalar = (value) => new ort.Tensor("float32", Float32Array.of(value), []);

  // The heads of {data, width, height} with RGBA bytes, and milliseconds: {heads, prepare, run}.
  // In tiles, which take up to nine inputs, only images are looked at that need not be quick.
  async function detect(image, score, inTiles) {
    const {size, iou, secondLook} = settings;
    const time = {prepare: 0, run: 0};
    const least = secondLook ? Math.min(score, secondLook.leastScore) : score;
    let [heads] = await lookAt(image, [wholeView(image, size)], least, time);
    if (!secondLook) return {heads, ...time};
    const {far, close, leastScore} = secondLook;
    const look = (views) => lookAt(image, views, leastScore, time);
    if (isWorthAFarLook(heads, image, far)) {
      const seen = await look(farViews(image, size, far));
      heads = joinLooks(heads, meanOfLooks(seen, iou), image, far, iou);
    }
    if (isWorthATurnedLook(heads, image, secondLook)) {
      const seen = await look(turnedViews(image, size, secondLook));
      heads = joinTurned(heads, seen, image, secondLook, iou);
    }
    const side = inTiles ? tileSide(heads, image, size, secondLook.tiles) : 0;
    if (side) {
      const windows = tileWindows(image, side, secondLook.tiles);
      const seen = [];
      for (const window of windows) seen.push(...(await look([tileView(window, size)])));
      heads = joinTiles(heads, windows, seen, image, side, secondLook.tiles, iou);
    }
    const inputs = closeInputs(heads, image, size, close);
    if (inputs.length) {
      const seen = [];
      for (const squares of inputs) seen.push(...(await look(squares.map(({view}) => view))));
      heads = eachOnce(refinedHeads(heads, inputs.flat(), seen, image, size, close), iou);
    }
    return {heads: heads.filter((head) => head.score >= score), ...time};
  }

  // The heads in each of several views of the image that lie in one input; adds the milliseconds.
  async function lookAt(image, views, score, time) {
    const start = performance.now();
    const rgb = inputOfViews(image, views, settings.size);
    const images = new ort.Tensor("uint8", rgb, [1, settings.size, settings.size, 3]);
    const prepared = performance.now();
    const found = await session.run({
      images,
      score_threshold: scalar(score),
      iou_threshold: scalar(settings.iou),
    });
    const outputs = Object.fromEntries(Object.entries(found).map(([name, {data}]) => [name, data]));
    const heads = views.map((view) => headsInView(outputs, view, image));
    time.prepare += prepared - start;
    time.run += performance.now() - prepared;
    return heads;
  }

  return {detect, threads};
}

function besideThePage({runtime, model}) {
  return {
    runtime: () => import(new URL(runtime, document.baseURI)),
    model: async () => {
      const response = await fetch(model);
      if (!response.ok) throw new Error(`${model}: ${response.status} ${response.statusText}`);
      return new Uint8Array(await response.arrayBuffer());
    },
  };
}

function insideThePage() {
  return {
    runtime: async () => {
      const code = new Blob([await unpacked("runtime")], {type: "text/javascript"});
      const ort = await import(URL.createObjectURL(code));
      ort.env.wasm.wasmBinary = await unpacked("wasm");
      return ort;
    },
    model: () => unpacked("model"),
  };
}

function embedded(name) {
  return document.getElementById(`embedded-${name}`);
}

// The bytes of a gzipped, base64 encoded file that is part of the page; they are used once.
async function unpacked(name) {
  const text = atob(embedded(name).textContent);
  embedded(name).remove();
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
