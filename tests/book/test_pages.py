"""The built pages in a real browser: quiet, at home, readable and within reach for everyone."""

import gzip
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import sync_playwright
from pypdf import PdfReader

import tlhelpers
from tlhelpers import chapters
from tlhelpers.book import pdf, serving, toc

BROWSER = next(filter(None, map(shutil.which, pdf.BROWSERS)), None)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
GRAVE = ("serious", "critical")
MOST_BYTES, MOST_JUMPED, LATEST_SECONDS = 2_000_000, 0.1, 1.5
SHORT_PAGE, TIMES_SHORT_PAGE = "book/references.html", 2
MOST_TABS, MOST_STEPS = 1500, 20
CLASSIFIER = "book/18_in_the_browser.html"
VIEWS = ".widget-box-reserved"
WIDGETS = [
    ("book/06_comparison.html", 0),
    ("book/06_comparison.html", 1),
    ("book/07_looking_inside.html", 0),
    ("book/08_how_deep.html", 0),
]

# What the browser tells of a page's first seconds: when its largest part was drawn, and how far parts have jumped.
OBSERVE = """
    window.seen = {drawn: Infinity, jumped: 0};
    const observe = (type, note) => new PerformanceObserver(
        (list) => list.getEntries().forEach(note)).observe({type, buffered: true});
    observe("largest-contentful-paint", (entry) => seen.drawn = entry.startTime / 1000);
    observe("layout-shift", (entry) => seen.jumped += entry.hadRecentInput ? 0 : entry.value);
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # the first slow test executes every chapter
    pytest.mark.skipif(BROWSER is None, reason=f"none of {pdf.BROWSERS} is installed"),
]


def list_pages():
    return [f"{name}.html" for name in toc.list_pages()] + ["search.html", "genindex.html"]


@pytest.fixture(scope="session")
def address(site):
    """The address of the site, served on this machine as `make serve` does."""
    with serving.serve(site) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """Chromium, without a window; closed before other tests need an event loop of their own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser, address, name, *, viewport=DESKTOP, theme="light", script=""):
    """A page of the site in a browser that knows nothing yet; it keeps what it asked for and complained of."""
    context = browser.new_context(viewport=viewport, color_scheme=theme)
    context.add_init_script(script)
    page = context.new_page()
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"{address}/{name}", wait_until="networkidle")
    return page


@pytest.fixture
def visit(browser, address):
    """Opens pages of the site."""
    pages = []

    def open_another(name, **options):
        pages.append(open_page(browser, address, name, **options))
        return pages[-1]

    yield open_another
    for page in pages:
        page.context.close()


@pytest.fixture(scope="module", params=list_pages())
def name(request):
    """Each page in turn."""
    return request.param


@pytest.fixture(scope="module")
def desktop(browser, address, name):
    """That page on a desktop; the tests that only look share it."""
    page = open_page(browser, address, name, script=OBSERVE)
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def phone(browser, address, name):
    """That page on a phone."""
    page = open_page(browser, address, name, viewport=PHONE)
    yield page
    page.context.close()


def test_page_loads_without_an_error_and_asks_no_other_machine(desktop, address):
    assert desktop.complaints == []
    assert [url for url in desktop.asked if not url.startswith((address, "data:", "blob:"))] == []


def test_a_page_is_light_and_its_parts_stay_where_they_are(desktop, address):
    files = [requests.get(url, timeout=10) for url in set(desktop.asked) if url.startswith(address)]
    sizes = [len(gzip.compress(f.content) if is_text(f) else f.content) for f in files]
    assert sum(sizes) <= MOST_BYTES
    assert desktop.evaluate("seen.jumped") <= MOST_JUMPED


def test_page_has_no_serious_barrier_on_a_desktop_in_the_light_theme(desktop):
    assert list_barriers(show_in(desktop, "light")) == []


def test_page_has_no_serious_barrier_on_a_phone_in_the_dark_theme(phone):
    assert list_barriers(show_in(phone, "dark")) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_on_either_screen_in_the_other_theme(desktop, phone, theme):
    page = phone if theme == "light" else desktop
    assert list_barriers(show_in(page, theme), runOnly=["color-contrast"]) == []


def show_in(page, theme):
    """The same page, as a reader sees it who prefers that theme."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
    page.wait_for_function("document.getAnimations().every(animation => animation.playState === 'finished')")
    return page


def list_barriers(page, **options):
    """What axe finds grave on a page: pairs of a rule's name and the HTML that breaks it."""
    found = Axe().run(page, options={"resultTypes": ["violations"]} | options).response["violations"]
    return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in GRAVE]


def test_page_does_not_scroll_sideways_on_a_phone(phone):
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_pictures_keep_their_shape_on_a_phone(phone):
    stretched = phone.evaluate(
        """async () => {
            const pictures = [...document.querySelectorAll("main img")];
            for (const picture of pictures) picture.loading = "eager";
            await Promise.all(pictures.map(picture => picture.decode().catch(() => null)));
            const inner = (picture, side, ...edges) => edges.reduce(
                (rest, edge) => rest - parseFloat(getComputedStyle(picture)["padding" + edge]),
                picture["client" + side]);
            const shown = p => inner(p, "Width", "Left", "Right") / inner(p, "Height", "Top", "Bottom");
            const differs = p => Math.abs(shown(p) * p.naturalHeight / p.naturalWidth - 1) > 0.02;
            return pictures.filter(p => p.clientWidth && differs(p)).map(p => p.src);
        }"""
    )
    assert stretched == []


def test_everything_that_can_be_used_is_reached_with_the_tabulator_key(desktop):
    page = desktop
    waiting = page.evaluate(
        """() => {
            const inputs = 'select, input:not([type="radio"]:not(:checked))'; // arrows move among radio buttons
            const usable = `main :is(a[href], button, summary, ${inputs}, [tabindex="0"])`;
            const visible = element => element.checkVisibility({visibilityProperty: true}) && !element.disabled;
            window.waiting = new Set([...document.querySelectorAll(usable)].filter(visible));
            document.addEventListener("focusin", event => window.waiting.delete(event.target));
            return window.waiting.size;
        }"""
    )
    for _ in range(MOST_TABS):
        if not waiting:
            break
        page.keyboard.press("Tab")
        waiting = page.evaluate("window.waiting.size")
    assert page.evaluate("[...window.waiting].map(element => element.outerHTML.slice(0, 200))") == []


def test_a_published_page_has_a_card_and_a_place_on_the_map(visit, site):
    page = visit("book/04_frozen_backbone.html")
    assert page.get_attribute("meta[property='og:title']", "content") == "4. A frozen backbone"
    card = page.get_attribute("meta[property='og:image']", "content").removeprefix("https://owner.github.io/name/")
    assert (site / card).is_file()
    said = page.get_attribute("meta[property='og:description']", "content")
    assert said.startswith("Our MobileNetV2")
    places = (site / "sitemap.xml").read_text(encoding="utf-8")
    assert "<loc>https://owner.github.io/name/book/04_frozen_backbone.html</loc>" in places


def test_a_chapter_leads_to_its_copy_in_notebook_services(visit):
    links = visit("book/04_frozen_backbone.html").locator("p.times a")
    copy = "/owner/name/blob/notebooks/book/04_frozen_backbone.ipynb"
    assert [link.inner_text() for link in links.all()] == ["run in Colab", "run in Kaggle"]
    assert all(link.get_attribute("href").endswith(copy) for link in links.all())


def test_an_answer_of_a_quiz_opens_with_a_key_and_closes_the_one_before(visit):
    page = visit("book/04_frozen_backbone.html")
    answers = page.locator(".quiz").first.locator("details")
    for number in (0, 1):
        answers.nth(number).locator("summary").press("Enter")
        assert [answer.get_attribute("open") is not None for answer in answers.all()].index(True) == number
        assert answers.nth(number).locator("p").inner_text().startswith(("✓ Right.", "✗ Not this one."))
    assert page.locator(".quiz details[open]").count() == 1


def test_exercises_are_numbered_and_a_solution_opens_with_a_key(visit):
    page = visit("book/04_frozen_backbone.html")
    assert page.locator("div.exercise .admonition-title").first.inner_text() == "Exercise 4.1"
    solution = page.locator("div.solution").first
    assert solution.locator(".admonition-title").inner_text().startswith("Solution to Exercise 4.1")
    text = solution.locator("section")
    assert not text.is_visible()
    solution.locator("button").press("Enter")
    text.wait_for(state="visible")


def test_a_page_refuses_a_script_from_elsewhere(visit):
    refused = visit("book/glossary.html").evaluate(
        """() => new Promise(resolve => {
            document.addEventListener("securitypolicyviolation", event => resolve(event.blockedURI));
            document.head.append(Object.assign(document.createElement("script"), {src: "https://elsewhere.test/x.js"}));
        })"""
    )
    assert refused == "https://elsewhere.test/x.js"


def test_a_page_can_be_opened_without_a_server(browser, site):
    page = browser.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((site / "book" / "04_frozen_backbone.html").as_uri())
    assert page.locator("figure img").first.evaluate("image => image.naturalWidth") > 0
    assert page.locator(".bd-sidebar-primary").evaluate("element => getComputedStyle(element).display") == "flex"
    assert [text for text in said if "Content Security Policy" in text] == []
    page.close()


def test_the_search_finds_a_chapter(visit):
    page = visit("search.html?q=convolution")
    page.wait_for_selector("#search-results li a")
    assert "book/" in page.get_attribute("#search-results li a", "href")


def test_the_theme_changes_by_click_and_stays_changed_on_the_next_page(visit, address):
    page = visit("book/index.html")
    before = page.evaluate("document.documentElement.dataset.theme")
    while page.evaluate("document.documentElement.dataset.theme") == before:
        page.locator("button.theme-switch-button:visible").first.click()
    page.goto(f"{address}/book/01_why_transfer_works.html")
    assert page.evaluate("document.documentElement.dataset.theme") != before


def test_a_hidden_solution_opens_with_a_key(visit):
    page = visit("book/05_fine_tuning.html")
    summary = page.locator("details summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.evaluate("element => element.open")


@pytest.fixture
def widget(visit):
    """Opens a chapter, scrolls to one of its widgets, and gives what was drawn of it."""

    def draw(name, index=0, **options):
        page = visit(name, **options)
        view = page.locator(VIEWS).nth(index)
        view.scroll_into_view_if_needed()
        view.locator(".jupyter-widgets").first.wait_for()
        return view

    return draw


def pane_of(view):
    """What the pane says that a widget shows."""
    return view.locator(".widget-html-content:visible").inner_text()


@pytest.mark.parametrize(("name", "index"), WIDGETS)
def test_every_control_of_a_widget_changes_what_is_shown(widget, name, index):
    view = widget(name, index)
    controls = view.locator("select, .noUi-handle")
    assert controls.count() == 2
    assert view.locator(".widget-vbox > .widget-box").get_attribute("aria-live") == "polite"
    for number in range(controls.count()):
        control = controls.nth(number)
        if control.evaluate("element => element.matches('select') && element.options.length < 2"):
            continue  # a single choice: there is nothing to change to
        before = pane_of(view)
        control.focus()
        for _ in range(MOST_STEPS):
            view.page.keyboard.press("ArrowDown" if control.evaluate("e => e.matches('select')") else "ArrowRight")
            if pane_of(view) != before:
                break
        assert pane_of(view) != before
    assert view.page.complaints == []


@pytest.mark.parametrize(("name", "index"), WIDGETS)
def test_a_slider_moves_by_click_and_says_the_words_it_stands_on(widget, name, index):
    view = widget(name, index)
    for slider in view.locator(".widget-hslider").all():
        readout = slider.locator(".widget-readout")
        before = readout.inner_text()
        bar = slider.locator(".noUi-base").bounding_box()
        view.page.mouse.click(bar["x"] + bar["width"] - 1, bar["y"] + bar["height"] / 2)
        assert readout.inner_text() != before
        handle = slider.locator(".noUi-handle")
        assert handle.get_attribute("aria-valuetext") == readout.inner_text()
        assert handle.get_attribute("aria-label") == slider.locator(".widget-label").inner_text()


@pytest.mark.parametrize(("name", "index"), WIDGETS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_drawn_widgets_have_no_serious_barrier_and_fit_a_phone(widget, name, index, theme):
    view = widget(name, index, viewport=PHONE, theme=theme)
    assert list_barriers(view.page) == []
    assert view.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_program_that_draws_widgets_is_asked_for_only_where_one_comes_near(visit, widget):
    assert not [url for url in visit("book/03_baseline_cnn.html").asked if "embed.js" in url]
    assert len([url for url in widget(*WIDGETS[0]).page.asked if "embed.js" in url]) == 1


def test_a_term_tells_its_meaning_and_leads_to_the_glossary(visit):
    page = visit("book/04_frozen_backbone.html")
    link = page.locator("a[href*='glossary.html#term-Head']").first
    assert "from features to one logit for each class" in link.get_attribute("title")
    link.click()
    assert page.locator("#term-Head").is_visible()


def test_the_front_page_shows_the_result_as_a_figure_with_its_numbers_in_words(visit):
    figure = visit("book/index.html").locator("#fig-result img")
    assert figure.evaluate("image => image.complete && image.naturalWidth > 0")
    assert "frozen MobileNetV2, new head" in figure.get_attribute("alt")


@pytest.fixture
def classifier(visit):
    """Opens the classifier, and gives the place on its page; `answers` then holds what the models say."""

    def open_classifier(**options):
        page = visit(CLASSIFIER, **options)
        assert not [url for url in page.asked if url.endswith((".tflite", ".wasm"))]  # large: only when asked for
        place = page.locator(".flower-classifier")
        place.get_by_role("button", name="Open the classifier").click()
        place.get_by_role("button", name="A new drawing").wait_for()
        page.wait_for_function("document.querySelector('.flower-classifier').dataset.answers")
        return place

    return open_classifier


def answers_of(place, act):
    """What the models say after an action: a list of probabilities for each model."""
    place.evaluate("element => delete element.dataset.answers")
    act()
    place.page.wait_for_function("document.querySelector('.flower-classifier').dataset.answers")
    return np.array(json.loads(place.get_attribute("data-answers")))


def test_the_reference_describes_every_public_name(site):
    page = (site / "book" / "api.html").read_text(encoding="utf-8")
    for module, names in tlhelpers.PUBLIC.items():
        for name in names:
            assert f'id="tlhelpers.{module}.{name}"' in page, name
    assert all(f">{part}<" in page for part in ("Parameters", "Returns", "Raises", "Source"))


def test_who_gives_a_photo_to_models_of_drawings_is_told(classifier):
    place = classifier()
    assert chapters.FROM_DRAWINGS in place.locator(".classifier-note").inner_text()
    assert place.locator("#classifier-file").get_attribute("aria-describedby") == "classifier-note"


def test_the_classifier_says_what_keras_says_about_every_picture(classifier, site):
    place = classifier()
    assert len(place.page.workers) == 3  # models work side by side, and the page goes on answering
    card = json.loads((site / "_static" / "exported" / "classifier.json").read_text(encoding="utf-8"))
    buttons = place.locator(".classifier-samples button").all()
    another = place.get_by_role("button", name="A new drawing")
    asked = list(zip(buttons, card["samples"], strict=True))
    asked += [(another, picture) for picture in card["drawings"]]
    answers = []
    for button, picture in asked:
        answers.append(answers_of(place, button.click))
        assert place.locator(".classifier-truth").inner_text() == f"true: {picture['label']}"
    expected = np.array([list(picture["keras"].values()) for _, picture in asked])
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-3)  # of all pictures, which tells one from many
    assert np.median(np.abs(answers - expected)) < 1e-6
    assert place.page.complaints == []


@pytest.mark.parametrize("missing", ["frozen.tflite", "litert_wasm_compat_internal.wasm"])
def test_a_file_that_does_not_come_is_named(visit, missing):
    page = visit(CLASSIFIER)
    page.route(f"**/{missing}", lambda route: route.fulfill(status=404))
    place = page.locator(".flower-classifier")
    place.get_by_role("button", name="Open the classifier").click()
    place.get_by_text("The models could not be loaded").wait_for()
    assert f"{missing} answers 404" in place.inner_text()


def test_the_classifier_takes_a_photo_and_refuses_what_is_none(classifier, tmp_path):
    place = classifier()
    pixels = np.full((40, 60, 3), (200, 30, 60), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "red.png")
    answers = answers_of(place, lambda: place.locator("input[type=file]").set_input_files(tmp_path / "red.png"))
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    place.locator("input[type=file]").set_input_files(tmp_path / "broken.png")
    place.get_by_text("broken.png is no picture that this browser can read").wait_for()


def test_what_is_painted_reaches_the_models(classifier):
    place = classifier()
    empty = answers_of(place, place.get_by_role("button", name="Paint one").click)
    place.get_by_label("red").check()
    box = place.get_by_role("img", name="The picture").bounding_box()
    mouse = place.page.mouse

    def paint():
        mouse.move(box["x"] + 40, box["y"] + 40)
        mouse.down()
        mouse.move(box["x"] + 180, box["y"] + 180, steps=5)
        mouse.up()

    assert not np.allclose(answers_of(place, paint), empty)


def test_where_the_models_look_is_shown_for_each_of_them(classifier):
    place = classifier()
    place.get_by_role("button", name="Where do they look?").press("Enter")
    maps = place.locator(".classifier-results canvas")
    maps.nth(2).wait_for()
    named = [canvas.get_attribute("aria-label") for canvas in maps.all()]
    assert [name.split('"')[1] for name in named] == ["baseline", "frozen", "fine-tuned"]


def test_what_belongs_to_an_earlier_picture_is_not_shown_beside_a_later_one(classifier):
    place = classifier()
    place.get_by_role("button", name="Where do they look?").click()
    answers_of(place, place.get_by_role("button", name="A new drawing").click)
    place.page.wait_for_timeout(3000)  # the first picture's maps would be there by now
    assert place.locator(".classifier-results canvas").count() == 0
    assert "Three predictions" in place.get_by_role("status").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_open_classifier_has_no_serious_barrier_and_fits_a_phone(classifier, theme):
    page = classifier(viewport=PHONE, theme=theme).page
    assert list_barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_book_is_printed_into_one_file_with_an_outline(site, tmp_path):
    pages = ["book/index", "book/08_how_deep"]
    with ThreadPoolExecutor(1) as apart:  # this thread's browser has an event loop already
        sheets = apart.submit(pdf.print_book, site, tmp_path / "book.pdf", pages).result()
    printed = PdfReader(tmp_path / "book.pdf")
    assert len(printed.pages) == sheets > len(pages)
    assert [item.title for item in printed.outline] == ["Transfer learning in CNNs", "8. How deep, how fast"]
    first, text = printed.pages[0], "".join(page.extract_text() for page in printed.pages)
    assert "What you will learn" in text
    assert "What moves" in text  # a widget
    assert first.mediabox.width == pytest.approx(595, abs=1)


def test_a_browser_without_webassembly_is_told_so(visit):
    place = visit(CLASSIFIER, script="delete globalThis.WebAssembly").locator(".flower-classifier")
    assert "This browser has no WebAssembly" in place.inner_text()


def is_text(response):
    """Whether a web host would compress a file on its way."""
    return re.search("text|javascript|json|svg", response.headers["content-type"]) is not None


@pytest.mark.parametrize("name", ["book/index.html", "book/07_looking_inside.html"])
def test_a_page_shows_early_on_a_slow_machine(visit, name):
    def seconds(name):
        page = visit("book/glossary.html", script=OBSERVE)
        page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 4})
        page.goto(page.url.replace("book/glossary.html", name), wait_until="networkidle")
        page.wait_for_function("seen.drawn < Infinity")
        return page.evaluate("seen.drawn")

    # On a machine that is busy with something else a page of a few lines is late, too.
    tries = (seconds(name) <= max(LATEST_SECONDS, TIMES_SHORT_PAGE * seconds(SHORT_PAGE)) for _ in range(20))
    assert any(tries)
