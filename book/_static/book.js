/* Buttons that show text are called by it: what a reader sees is what a screen reader says. */
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("button[aria-label]")) {
    const text = button.textContent.replace(/\s+/g, " ").trim();
    if (text && !button.ariaLabel.includes(text)) {
      button.ariaLabel = text.startsWith(button.ariaLabel) ? text : `${button.ariaLabel}: ${text}`;
    }
  }
});
