/* Fetches one exported model and runs it, beside the page, which goes on answering while it works. */
const library = import("./litert.js");
let model; // its bytes at first, then what answers

/* A file's bytes; `advance` hears of each part that has come. */
async function fetchBytes(url, advance) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} answers ${response.status}`);
  const parts = [];
  for (let reader = response.body.getReader(), part; !(part = await reader.read()).done; ) {
    parts.push(part.value);
    advance(part.value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

const tasks = {
  /* The program that runs models, compiled, for the workers of all models. */
  async compile({ url }, advance) {
    return WebAssembly.compile(await fetchBytes(url, advance));
  },

  /* Fetches the model. */
  async fetch({ url }, advance) {
    model = await fetchBytes(url, advance);
  },

  /* Starts the program, and makes it take the fetched model in. */
  async start({ program, compiled }) {
    const instantiateWasm = (imports, receive) => receive(new WebAssembly.Instance(compiled, imports), compiled);
    self.Module = { instantiateWasm, print() {}, printErr() {} }; // it prints nothing that a reader could use
    const { loadLiteRt, loadAndCompile } = await library;
    await loadLiteRt(program);
    model = await loadAndCompile(model, { accelerator: "wasm" });
  },

  /* From the pixels of a picture to a probability for each class. */
  async predict({ pixels, size }) {
    const { Tensor } = await library;
    const input = new Tensor(new Float32Array(pixels), [1, size, size, 3]);
    const [output] = await model.run(input);
    const probabilities = Array.from(await output.data());
    input.delete();
    output.delete();
    return probabilities;
  },
};

self.addEventListener("message", async ({ data: { id, task, ...facts } }) => {
  try {
    self.postMessage({ id, answer: await tasks[task](facts, (bytes) => self.postMessage({ bytes })) });
  } catch (error) {
    self.postMessage({ id, failure: String(error.message || error) });
  }
});
