/* The classifier on a page: three exported models and a picture, all of it in the reader's browser. */
const RUNTIME = new URL("./litert_wasm_compat_internal", import.meta.url);
const RUNTIME_BYTES = 9334181;
const EXPORTED = new URL("../exported/", import.meta.url);
const VIEW = 224; // pixels, side of the picture as it is shown
const GRID = 7; // places a side at which a patch hides part of the picture
const PATCH = 4; // a patch is a quarter of the picture's side, and moves by half of that
const SHADE = 0.75; // how much of the light a cold place loses, as in the book's heat maps
const BRUSH = 14; // pixels
const PAINTS = { yellow: "#e8b92e", white: "#f4f1ea", red: "#c0392b", violet: "#7d4fa0", green: "#3f7d3a", brown: "#5b3a21" };

/* An element with attributes and children, of which functions listen for clicks. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "click") element.addEventListener("click", value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function makeCanvas(side) {
  const canvas = make("canvas", { width: side, height: side });
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}

async function loadImage(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/* One exported model in a worker of its own, so that models work side by side: `ask` gives it a task and waits. */
class ExportedModel {
  /* `advance` hears of the bytes that have come. */
  constructor({ name, file }, size, advance) {
    Object.assign(this, { name, file, size, waiting: new Map(), asked: 0 });
    this.worker = new Worker(new URL("./worker.js", import.meta.url));
    this.worker.addEventListener("message", ({ data: { id, bytes, answer, failure } }) => {
      if (bytes) return advance(bytes);
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (failure === undefined) resolve(answer);
      else reject(new Error(failure));
    });
    this.worker.addEventListener("error", ({ message }) => {
      for (const { reject } of this.waiting.values()) reject(new Error(message || "the worker has stopped"));
      this.waiting.clear();
    });
  }

  ask(task, facts) {
    const id = ++this.asked;
    const answered = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.worker.postMessage({ id, task, ...facts });
    return answered;
  }

  /* The program that runs models, compiled. */
  compile() {
    return this.ask("compile", { url: `${RUNTIME}.wasm` });
  }

  async load(compiled) {
    await this.ask("fetch", { url: new URL(this.file, EXPORTED).href });
    await this.ask("start", { program: `${RUNTIME}.js`, compiled: await compiled });
  }

  /* From the pixels of a picture, whole numbers in 0..255, to a probability for each class. */
  predict(pixels) {
    return this.ask("predict", { pixels, size: this.size });
  }

  /* How much confidence a class loses where a grey patch hides the picture: `size` x `size` values in 0..1. */
  async occlude(pixels, index, whole) {
    const { size } = this;
    const side = Math.round(size / PATCH);
    const loss = new Float32Array(size * size);
    const times = new Float32Array(size * size);
    for (let place = 0; place < GRID * GRID; place++) {
      const top = Math.round(((size - side) * Math.floor(place / GRID)) / (GRID - 1));
      const left = Math.round(((size - side) * (place % GRID)) / (GRID - 1));
      const hidden = pixels.slice();
      for (let row = top; row < top + side; row++) {
        hidden.fill(127, 3 * (row * size + left), 3 * (row * size + left + side));
      }
      const drop = whole - (await this.predict(hidden))[index];
      for (let row = top; row < top + side; row++) {
        for (let column = left; column < left + side; column++) {
          loss[row * size + column] += drop;
          times[row * size + column] += 1;
        }
      }
    }
    const heat = loss.map((value, pixel) => Math.max(0, value / times[pixel]));
    const highest = heat.reduce((a, b) => Math.max(a, b), 1e-6);
    return heat.map((value) => value / highest);
  }
}

class Classifier {
  constructor(place, card) {
    this.place = place;
    this.card = card;
    this.size = card.image_size;
    this.models = [];
    this.turn = 0; // which picture it is; what belongs to an earlier one comes too late
    [this.input, this.inputContext] = makeCanvas(this.size); // what the models see
    [this.view, this.viewContext] = makeCanvas(VIEW); // what the reader sees
    this.status = make("p", { role: "status" });
    this.progress = make("progress", { "aria-label": "Loading", max: total(card) });
    this.results = make("div", { class: "classifier-results" });
    this.truth = make("p", { class: "classifier-truth" });
  }

  async open() {
    this.place.replaceChildren(this.status, this.progress);
    this.status.textContent = `Loading ${megabytes(this.card)} MB: the program that runs models, and the models.`;
    const advance = (bytes) => (this.progress.value = (this.progress.value || 0) + bytes);
    this.models = this.card.models.map((described) => new ExportedModel(described, this.size, advance));
    const compiled = this.models[0].compile();
    await Promise.all(this.models.map((model) => model.load(compiled)));
    this.layOut();
    await this.showSample(this.card.samples[0]);
  }

  layOut() {
    const { drawings } = this.card;
    const strip = make("div", { class: "classifier-samples", role: "group", "aria-label": "Sample pictures" });
    for (const [number, sample] of this.card.samples.entries()) {
      const picture = make("img", { src: new URL(sample.file, EXPORTED), alt: "", width: 56, height: 56 });
      const click = () => this.showSample(sample);
      strip.append(make("button", { type: "button", "aria-label": `Sample ${number + 1}`, click }, picture));
    }
    let next = 0;
    const draw = () => this.showSample(drawings[next++ % drawings.length]);
    const file = make("input", { type: "file", accept: "image/*", class: "classifier-file", id: "classifier-file" });
    if (this.card.note) file.setAttribute("aria-describedby", "classifier-note");
    file.addEventListener("change", () => file.files[0] && this.showFile(file.files[0]));
    const buttons = make(
      "div",
      { class: "classifier-buttons" },
      make("button", { type: "button", click: draw }, "A new drawing"),
      make("button", { type: "button", click: () => this.startPainting() }, "Paint one"),
      make("button", { type: "button", click: () => this.showHeat() }, "Where do they look?"),
      make("label", { for: "classifier-file" }, "Your photo:"),
      file,
    );
    this.view.setAttribute("role", "img");
    this.view.setAttribute("aria-label", "The picture");
    this.paints = this.makePaints();
    this.letPaint();
    this.letDrop();
    this.results.setAttribute("aria-live", "polite");
    const left = make("div", {}, this.view, this.truth, this.paints);
    const body = make("div", { class: "classifier-body" }, left, this.results);
    const note = make("p", { class: "classifier-note", id: "classifier-note" }, this.card.note || "");
    this.place.replaceChildren(strip, buttons, note, body, this.status);
  }

  async showSample(sample) {
    const image = await loadImage(new URL(sample.file, EXPORTED));
    await this.show(image, `true: ${sample.label}`, sample);
  }

  async showFile(file) {
    const url = URL.createObjectURL(file);
    try {
      await this.show(await loadImage(url), "your picture, which stays on this machine");
    } catch {
      this.status.textContent = `${file.name} is no picture that this browser can read. Choose a JPEG, PNG or WebP file.`;
    } finally {
      URL.revokeObjectURL(url);
    }
  }

  /* Lets the models see a picture, and shows it with what they say: to lay the page out once leaves them more time. */
  async show(image, words, sample) {
    this.paints.hidden = true;
    this.inputContext.imageSmoothingQuality = "high";
    this.inputContext.drawImage(image, 0, 0, this.size, this.size); // squeezed to a square, as in training
    await this.classify(sample, () => {
      this.viewContext.drawImage(image, 0, 0, VIEW, VIEW);
      this.truth.textContent = words;
    });
  }

  pixels() {
    const { data } = this.inputContext.getImageData(0, 0, this.size, this.size);
    const pixels = new Uint8Array((data.length / 4) * 3);
    for (let from = 0, to = 0; from < data.length; from += 4) {
      pixels[to++] = data[from];
      pixels[to++] = data[from + 1];
      pixels[to++] = data[from + 2];
    }
    return pixels;
  }

  /* `reveal` is called before the answers are shown, unless another picture has come. */
  async classify(sample, reveal) {
    const turn = ++this.turn;
    const pixels = this.pixels();
    const started = performance.now();
    const answers = await Promise.all(this.models.map((model) => model.predict(pixels)));
    if (turn !== this.turn) return;
    const milliseconds = performance.now() - started;
    reveal?.();
    this.answers = answers;
    this.results.replaceChildren(...answers.map((answer, number) => this.tabulate(number, answer)));
    let words = `Three predictions in ${milliseconds.toFixed(0)} ms.`;
    if (sample) {
      const apart = answers.map((answer, number) => largestDifference(answer, sample.keras[this.models[number].name]));
      words += ` Keras says the same, within ${Math.max(...apart).toExponential(0)}.`;
    }
    this.status.textContent = words;
    Object.assign(this.place.dataset, { answers: JSON.stringify(answers), milliseconds });
  }

  tabulate(number, answer) {
    const best = answer.indexOf(Math.max(...answer));
    const { class_names: names } = this.card;
    const rows = answer.map((share, index) =>
      make(
        "tr",
        index === best ? { class: "classifier-best" } : {},
        make("th", { scope: "row" }, names[index]),
        make("td", { style: `--share: ${share}` }, `${(100 * share).toFixed(1)} %`),
      ),
    );
    const caption = make("caption", {}, `${this.models[number].name}: ${names[best]}`);
    return make("div", {}, make("table", {}, caption, make("tbody", {}, ...rows)));
  }

  async showHeat() {
    const { turn } = this;
    const pixels = this.pixels();
    this.status.textContent = "Hiding parts of the picture from the models ...";
    const search = async (model, number) => {
      const answer = this.answers[number];
      const best = answer.indexOf(Math.max(...answer));
      const heat = await model.occlude(pixels, best, answer[best]);
      if (turn !== this.turn) return;
      const words = `Where "${model.name}" finds its evidence for ${this.card.class_names[best]}`;
      const result = this.results.children[number];
      result.querySelector("canvas")?.remove();
      result.append(this.drawHeat(heat, words));
    };
    await Promise.all(this.models.map(search));
    if (turn !== this.turn) return;
    this.status.textContent = "Bright is where a grey patch costs the most confidence.";
  }

  drawHeat(heat, words) {
    const [canvas, context] = makeCanvas(this.size);
    const shown = this.inputContext.getImageData(0, 0, this.size, this.size);
    for (let pixel = 0; pixel < heat.length; pixel++) {
      const light = 1 - SHADE * (1 - heat[pixel]);
      for (let channel = 0; channel < 3; channel++) shown.data[4 * pixel + channel] *= light;
    }
    context.putImageData(shown, 0, 0);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", words);
    return canvas;
  }

  makePaints() {
    const legend = make("legend", {}, "Paint with");
    const choices = Object.entries(PAINTS).map(([name, value], number) => {
      const radio = make("input", { type: "radio", name: "paint", value, ...(number ? {} : { checked: "" }) });
      return make("label", { style: `--paint: ${value}` }, radio, ` ${name}`);
    });
    return make("fieldset", { class: "classifier-paints", hidden: "" }, legend, ...choices);
  }

  async startPainting() {
    this.viewContext.fillStyle = PAINTS.green;
    this.viewContext.fillRect(0, 0, VIEW, VIEW);
    await this.show(this.view, "yours: paint on the picture with the pointer");
    this.paints.hidden = false;
  }

  letPaint() {
    let last = null;
    const place = ({ clientX, clientY }) => {
      const box = this.view.getBoundingClientRect();
      return [((clientX - box.left) * VIEW) / box.width, ((clientY - box.top) * VIEW) / box.height];
    };
    const stroke = (event) => {
      if (!last) return;
      const context = this.viewContext;
      const to = place(event);
      Object.assign(context, { lineWidth: BRUSH, lineCap: "round" });
      context.strokeStyle = this.paints.querySelector(":checked").value;
      context.beginPath();
      context.moveTo(...last);
      context.lineTo(...to);
      context.stroke();
      last = to;
    };
    this.view.addEventListener("pointerdown", (event) => {
      if (this.paints.hidden) return;
      this.view.setPointerCapture(event.pointerId);
      last = place(event);
      stroke(event);
    });
    this.view.addEventListener("pointermove", stroke);
    this.view.addEventListener("pointerup", () => {
      if (!last) return;
      last = null;
      this.inputContext.drawImage(this.view, 0, 0, this.size, this.size);
      this.classify();
    });
  }

  letDrop() {
    this.place.addEventListener("dragover", (event) => event.preventDefault());
    this.place.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.showFile(event.dataTransfer.files[0]);
    });
  }
}

/* What is loaded, in bytes: the program and the models. */
function total(card) {
  return card.models.reduce((sum, { bytes }) => sum + bytes, RUNTIME_BYTES);
}

function megabytes(card) {
  return (total(card) / 1e6).toFixed(0);
}

function largestDifference(a, b) {
  return Math.max(...a.map((value, index) => Math.abs(value - b[index])));
}

/* Puts the classifier into a place on the page, behind a button: what it loads is large. */
export async function offerClassifier(place) {
  const response = await fetch(new URL("classifier.json", EXPORTED));
  if (!response.ok) return; // nothing was exported: the place keeps its words
  const card = await response.json();
  const open = async () => {
    try {
      await new Classifier(place, card).open();
    } catch (error) {
      place.textContent = `The models could not be loaded: ${error.message}. Reload the page to try again.`;
    }
  };
  place.replaceChildren(make("button", { type: "button", click: open }, `Open the classifier (loads ${megabytes(card)} MB)`));
}
