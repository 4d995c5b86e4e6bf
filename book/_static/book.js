/* Buttons that show text are called by it: what a reader sees is what a screen reader says. Icons have no say. */
document.addEventListener("DOMContentLoaded", () => {
  for (const icon of document.querySelectorAll("button[aria-label] i[title]")) {
    icon.removeAttribute("title");
  }
  for (const button of document.querySelectorAll("button[aria-label]")) {
    const text = button.textContent.replace(/\s+/g, " ").trim();
    if (text && !button.ariaLabel.includes(text)) {
      button.ariaLabel = text.startsWith(button.ariaLabel) ? text : `${button.ariaLabel}: ${text}`;
    }
  }
});

/* What scrolls sideways can be scrolled with the keyboard too: it takes the focus as long as it overflows. */
const SCROLLING = ".bd-article :is(table, pre, .text_html, div.math, .widget-html-content)";

function letKeysScroll() {
  for (const box of document.querySelectorAll(SCROLLING)) {
    if (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible") {
      box.tabIndex = 0;
    } else {
      box.removeAttribute("tabindex");
    }
  }
}
addEventListener("load", letKeysScroll);
addEventListener("resize", letKeysScroll);
document.addEventListener("toggle", letKeysScroll, true);

/* Widgets are drawn without a kernel, by a program of the site's own that is loaded when the first comes near. */
const WIDGETS = 'script[type="application/vnd.jupyter.widget-view+json"]';
const RENDERER = new URL("widgets/embed.js", document.currentScript.src);

function drawWidgets() {
  const script = document.createElement("script");
  script.src = RENDERER;
  script.addEventListener("load", () => dispatchEvent(new Event("load"))); // what it waits for is long past
  document.head.append(script);
}

/* A slider is called by its label and says the words it stands on; a pane that changes is read out. */
function nameWidgets() {
  for (const slider of document.querySelectorAll(".widget-hslider")) {
    const handle = slider.querySelector(".noUi-handle");
    if (handle) {
      handle.ariaLabel = slider.querySelector(".widget-label").textContent;
      handle.ariaValueText = slider.querySelector(".widget-readout").textContent;
    }
  }
  for (const pane of document.querySelectorAll(".widget-vbox > .widget-box")) {
    pane.ariaLive = "polite";
  }
  letKeysScroll();
}

document.addEventListener("DOMContentLoaded", () => {
  const boxes = [...document.querySelectorAll(WIDGETS)].map((view) => view.parentElement);
  const watcher = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      watcher.disconnect();
      drawWidgets();
    }
  }, { rootMargin: "600px" });
  for (const box of boxes) {
    box.classList.add("widget-box-reserved");
    watcher.observe(box);
    new MutationObserver(nameWidgets).observe(box, { childList: true, characterData: true, subtree: true });
  }
});

/* The classifier is offered where a page has a place for it. */
const CLASSIFIER = new URL("classifier/classifier.js", document.currentScript.src);

document.addEventListener("DOMContentLoaded", async () => {
  const place = document.querySelector(".flower-classifier");
  if (place && typeof WebAssembly !== "object") {
    place.textContent = "This browser has no WebAssembly, or has it turned off: the models cannot run here.";
  } else if (place) {
    const { offerClassifier } = await import(CLASSIFIER);
    await offerClassifier(place);
  }
});
