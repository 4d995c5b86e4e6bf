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
