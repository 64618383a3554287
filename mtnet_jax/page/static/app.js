// The page: an image or the camera in, boxes, axes and numbers out.

import {drawHeads} from "mtnet/drawing";
import {direction} from "mtnet/heads";
import {openNetwork} from "mtnet/network";

const settings = JSON.parse(document.getElementById("settings").textContent);
const element = (id) => document.getElementById(id);
const view = element("view");
const context = view.getContext("2d");
const grabbed = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const SPOKEN_EVERY = 2000; // milliseconds: a live region that changes faster is no use to anybody

let network = null;
let source = null; // what is looked at: {image, width, height}
let stream = null; // of the camera
let wish = 0; // number of the newest wish for the camera on or off: a stream of an older one is let go
let running = false; // the network, which takes one image at a time
let asked = false; // for another run meanwhile
let spoken = 0;
const frames = []; // times of the newest frames
// What tests and curious people read: the newest result, and how many there were.
const state = (globalThis.mtnet = {ready: false, results: 0, last: null});

function say(text) {
  element("status").textContent = text;
}

// Runs the network on the source and shows the result; calls meanwhile lead to one more run.
async function look() {
  if (!network || !source) return;
  asked = true;
  if (running) return;
  running = true;
  try {
    while (asked && source) {
      asked = false;
      const {image, width, height} = source;
      const result = await network.detect(pixels(image, width, height), Number(element("score").value), !stream);
      if (source?.image === image) show(result, width, height);
    }
  } catch (error) {
    say(`This image could not be looked at: ${error.message}`);
  } finally {
    running = false;
  }
}

function pixels(image, width, height) {
  if (grabbed.canvas.width !== width || grabbed.canvas.height !== height) {
    Object.assign(grabbed.canvas, {width, height});
  }
  grabbed.clearRect(0, 0, width, height); // where an image is transparent, the one before shows through
  grabbed.drawImage(image, 0, 0, width, height);
  return grabbed.getImageData(0, 0, width, height);
}

function show(result, width, height) {
  if (view.width !== width || view.height !== height) Object.assign(view, {width, height});
  context.clearRect(0, 0, width, height);
  context.drawImage(grabbed.canvas, 0, 0);
  drawHeads(context, result.heads, {cube: element("cube").checked});
  list(result.heads);
  frames.push(performance.now());
  if (frames.length > 20) frames.shift();
  Object.assign(state, {last: {...result, width, height}, results: state.results + 1});
  const count = result.heads.length === 1 ? "1 head" : `${result.heads.length} heads`;
  element("view").setAttribute("aria-label", `The image with ${count} drawn on it`);
  element("speed").textContent = speed(result);
  const now = performance.now();
  if (!stream || now - spoken > SPOKEN_EVERY) {
    say(count);
    spoken = now;
  }
}

function speed({prepare, run}) {
  const took = `${(prepare + run).toFixed(0)} ms an image`;
  const threads = network.threads === 1 ? "1 thread" : `${network.threads} threads`;
  if (!stream || frames.length < 2) return `${took}, ${threads}`;
  const rate = (1000 * (frames.length - 1)) / (frames.at(-1) - frames[0]);
  return `${rate.toFixed(1)} frames a second, ${took}, ${threads}`;
}

function list(heads) {
  const angle = (value) => `${Math.round(value) + 0}°`;
  const several = settings.classNames.length > 1;
  const rows = heads.map(({score, label, rotation, yaw, pitch, roll}, index) => {
    const row = document.createElement("tr");
    const name = several ? ` ${settings.classNames[label]}` : "";
    const angles = [yaw, pitch, roll].map(angle);
    const cells = [`#${index + 1}${name}`, score.toFixed(2), direction(rotation), ...angles];
    for (const [column, text] of cells.entries()) {
      const cell = document.createElement(column ? "td" : "th");
      if (!column) cell.scope = "row";
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  });
  element("rows").replaceChildren(...rows);
  element("numbers").hidden = !heads.length;
}

async function open(file) {
  stopCamera();
  const mine = wish;
  try {
    // As the file has its colours, upright as its EXIF entry says: what Python reads. Browsers turn it
    // unasked, and those of before 2023 refuse the word for it ("from-image").
    const image = await createImageBitmap(file, {colorSpaceConversion: "none"});
    if (mine !== wish) return;  // something else was chosen meanwhile
    source = {image, width: image.width, height: image.height};
  } catch {
    if (mine !== wish) return;
    say(`${file.name} is no image that this browser can read: try JPEG or PNG.`);
    return;
  }
  look();
}

function release(released) {
  for (const track of released?.getTracks() ?? []) track.stop();
}

function stopCamera() {
  wish++;
  release(stream);
  if (stream) source = null;
  stream = null;
  frames.length = 0;
  element("camera").textContent = "Start the camera";
  element("camera").setAttribute("aria-pressed", "false");
}

const CAMERA_TROUBLE = {
  NotAllowedError: "The camera was not allowed: allow it in the browser's address bar, then start it again.",
  NotFoundError: "There is no camera on this machine: choose an image instead.",
  NotReadableError: "The camera is in use by another program: close that one, then start it again.",
};

// Of a camera that is unplugged, or no longer allowed; one that was stopped here does not end so.
function loseCamera() {
  stopCamera();
  say("The camera gives no more images: connect and allow it, then start it again.");
}

async function startCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    say("This page may not use a camera: browsers allow it over https, on localhost and in files.");
    return;
  }
  const [mine, video] = [++wish, element("video")];
  try {
    const opened = await navigator.mediaDevices.getUserMedia({video: {width: 640, facingMode: "user"}});
    if (mine !== wish) return release(opened);
    stream = opened;
    for (const track of opened.getTracks()) track.onended = () => mine === wish && loseCamera();
    video.srcObject = opened;
    await video.play();
  } catch (error) {
    if (mine !== wish) return;
    stopCamera();
    say(CAMERA_TROUBLE[error.name] ?? `The camera does not start: ${error.message}`);
    return;
  }
  if (mine !== wish) return;
  element("camera").textContent = "Stop the camera";
  element("camera").setAttribute("aria-pressed", "true");
  while (mine === wish) {
    source = {image: video, width: video.videoWidth, height: video.videoHeight};
    await look();
    await nextFrame(video);
  }
}

function nextFrame(video) {
  return new Promise((resolve) =>
    video.requestVideoFrameCallback ? video.requestVideoFrameCallback(resolve) : requestAnimationFrame(resolve),
  );
}

function connect() {
  element("file").addEventListener("change", ({target}) => {
    if (target.files[0]) open(target.files[0]);
    target.value = ""; // the same file may be chosen again
  });
  element("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
  element("cube").addEventListener("change", look);
  element("score").addEventListener("input", ({target}) => {
    element("score-shown").textContent = Number(target.value).toFixed(2);
    look();
  });
  const drop = element("drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      const file = name === "drop" && event.dataTransfer.files[0];
      if (file) open(file);
    });
  }
}

async function start() {
  connect();
  say("Loading the network …");
  try {
    network = await openNetwork(settings);
  } catch (error) {
    say(`The network cannot be loaded: ${error.message}`);
    return;
  }
  for (const id of ["file", "camera"]) element(id).disabled = false;
  say("Ready: choose an image, drop one here, or start the camera.");
  state.ready = true;
  look();
}

start();
