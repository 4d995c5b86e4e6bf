/* Runs the exported models beside the page, which goes on answering while they work. */
const library = import("./litert.js");
const models = [];

const tasks = {
  /* Starts the program that runs models, from its bytes. */
  async start({ program, wasmBinary }) {
    self.Module = { wasmBinary, print() {}, printErr() {} }; // it is told nothing that a reader could use
    const { loadLiteRt } = await library;
    await loadLiteRt(program);
  },

  /* Takes one model in, from its bytes. */
  async load({ bytes }) {
    const { loadAndCompile } = await library;
    models.push(await loadAndCompile(bytes, { accelerator: "wasm" }));
  },

  /* From the pixels of a picture to a probability for each class. */
  async predict({ number, pixels, size }) {
    const { Tensor } = await library;
    const input = new Tensor(pixels, [1, size, size, 3]);
    const [output] = await models[number].run(input);
    const probabilities = Array.from(await output.data());
    input.delete();
    output.delete();
    return probabilities;
  },
};

self.addEventListener("message", async ({ data: { id, task, ...facts } }) => {
  try {
    self.postMessage({ id, answer: await tasks[task](facts) });
  } catch (error) {
    self.postMessage({ id, failure: String(error.message || error) });
  }
});
