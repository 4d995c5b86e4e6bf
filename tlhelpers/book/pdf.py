"""The whole built book as one PDF file, printed page by page by Chromium.

python -m tlhelpers.book.pdf
"""

import shutil
import sys
import tempfile
from pathlib import Path

from tlhelpers import files, settings
from tlhelpers.book import serving, toc

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NAME = "transfer-learning-in-cnns.pdf"
PAPER = {"format": "A4", "scale": 0.75, "margin": dict.fromkeys(("top", "bottom", "left", "right"), "15mm")}

# Images and widgets come when they are scrolled to; paper has no scrolling.
SHOW_ALL = """async () => {
    for (const picture of document.images) picture.loading = "eager";
    for (let y = 0; y < document.body.scrollHeight; y += innerHeight) {
        scrollTo(0, y);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await Promise.all([...document.images].map((picture) => picture.decode().catch(() => null)));
}"""


def print_book(site, destination, pages, *, browser=None):
    """Prints pages of a built site, and binds them into one file with an outline.

    Args:
        site: Path. The folder of the site.
        destination: Path. The PDF file, written whole or not at all.
        pages: list of str. Pages below `site`, without suffix.
        browser: str or None. The program that prints; None means the first of `BROWSERS` that is found.

    Returns:
        int. The number of sheets.

    Raises:
        FileNotFoundError: when a page was not built, or there is no browser.
    """
    from playwright.sync_api import sync_playwright
    from pypdf import PdfReader, PdfWriter

    missing = [page for page in pages if not (site / f"{page}.html").is_file()]
    if missing:
        raise FileNotFoundError(f"The book is printed from its site: run `make book` first. Missing: {missing}")
    browser = browser or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"Pages are printed by one of {BROWSERS}. Received: none of them is installed")
    writer = PdfWriter()
    with serving.serve(site) as address, sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(color_scheme="light")
        for name in files.progress(pages, description="Printing", unit="page"):
            tab.goto(f"{address}/{name}.html", wait_until="networkidle")
            tab.evaluate(SHOW_ALL)
            printed = Path(folder) / "page.pdf"
            tab.pdf(path=str(printed), **PAPER)
            writer.append(PdfReader(printed), outline_item=tab.title().partition(" — ")[0])
        chromium.close()
    with files.atomic_file(destination) as temporary:
        writer.write(temporary)
    return len(writer.pages)


def main():
    """The command line."""
    printed = settings.build_folder() / NAME
    try:
        sheets = print_book(settings.site_folder(), printed, toc.list_pages())
    except FileNotFoundError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    print(f"{sheets} sheets in {printed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
