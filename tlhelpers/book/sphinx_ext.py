"""A Sphinx extension that gives the pages of jupyter-book their last touch: nothing unused, true names for all, the
meaning of a glossary's term wherever it is linked, and what a chapter takes.
"""

import gc
import html
import itertools
import json
import re
from pathlib import Path
from urllib.parse import unquote

from docutils import nodes
from PIL import Image
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer

# Beginnings of what the extension sphinx-thebe adds, which runs cells on a server elsewhere: its settings come twice
# and fail the second time.
UNUSED_FILES, UNUSED_BODY = ("_static/sphinx-thebe.js", "_static/sphinx-thebe.css"), "const THEBE_JS_URL"

# Scripts that stop a page from being shown until they have run, but for one that a line further down needs at once.
BLOCKING = re.compile(r"<script(?=[^>]*\ssrc=)(?![^>]*\s(?:defer|async)\b)(?![^>]*documentation_options\.js)")

# What classes of the reference are derived from. Sphinx looks for overloads in their sources, and loads TensorFlow for
# that, mocked or not, unless it is told that there are none.
MOCKED_BASES = ("keras", "keras.callbacks", "keras.utils")

# What opens a notebook that lies on GitHub.
SERVICES = {
    "Colab": "https://colab.research.google.com/github/{}",
    "Kaggle": "https://www.kaggle.com/kernels/welcome?src=https://github.com/{}",
}

# What a page may load and run: what lies beside it, its own scripts, the classifier's program and models. The program
# that draws widgets checks their state with code it makes on the way, which is what `unsafe-eval` allows. The scheme
# `file:` is for those who open a page without a server.
HERE = "'self' file:"
POLICY = "; ".join(
    (
        f"default-src {HERE}",
        f"script-src {HERE} 'unsafe-inline' 'unsafe-eval'",
        f"style-src {HERE} 'unsafe-inline'",
        f"img-src {HERE} data: blob:",
        f"font-src {HERE} data:",
        f"connect-src {HERE} data: blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self' file:",
    )
)

# The images that chapters have drawn; nothing has given them a size.
PICTURE = re.compile(r'<img(?![^>]*\s(?:width|height)=)[^>]*?\ssrc="(?P<source>[^":]*_images/[^"]+\.(?:png|jpe?g))"')

# What screen readers are told wrongly, and what they should be told.
CORRECTIONS = {
    '<section id="solution-content">': "<section>",  # the same for every solution of a page
    '<section id="exercise-content">': "<section>",
    '<summary aria-label="Toggle hidden content">': "<summary>",  # its text says more
    '<div role="list" class="citation-list">': '<div class="citation-list">',  # its parts are no list items
    ' role="doc-biblioentry"': "",  # a role that is no longer used
}


def finish_page(app, pagename, templatename, context, doctree):
    """Takes unused files off a page and corrects its roles and labels; Sphinx calls it for every page."""
    for kind in ("script_files", "css_files"):
        files = context.get(kind, [])
        files[:] = [file for file in files if not _is_unused(file)]
    policy = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}" />'
    context["metatags"] = f"\n    {policy}{context.get('metatags', '')}"
    if "body" in context:
        context["body"] = correct_roles(context["body"])


def correct_roles(body):
    """A page's HTML, str, with the corrections of `CORRECTIONS`."""
    for wrong, right in CORRECTIONS.items():
        body = body.replace(wrong, right)
    return body


def lighten_pages(app, exception):
    """Lets all that a page can be read without wait until the page is shown; Sphinx calls it at the end."""
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = delay_pictures(lighten(page.read_text(encoding="utf-8")), page.parent)
            page.write_text(text, encoding="utf-8")


def lighten(text):
    """A page's HTML, str, with scripts that run when the page has been read."""
    return BLOCKING.sub("<script defer", text)


def delay_pictures(text, folder):
    """A page's HTML, str, whose images come when they are scrolled to, all but the first, and keep their place free.

    Args:
        text: str. The page.
        folder: Path. The folder it lies in, from which its links start.

    Returns:
        str.
    """
    pictures = itertools.count()

    def delay(tag):
        with Image.open(folder / unquote(tag["source"])) as image:
            width, height = image.size
        lazy = ' loading="lazy"' if next(pictures) else ""
        return f'{tag[0]} width="{width}" height="{height}"{lazy}'

    return PICTURE.sub(delay, text)


def explain_terms(app, doctree, docname):
    """Gives links to terms their meaning as a title, which shows when the pointer is on them; Sphinx calls it for
    every page.
    """
    meanings = collect_meanings(app.env)
    for link in doctree.findall(nodes.reference):
        target = link.get("refid") or link.get("refuri", "").partition("#")[2]
        if target in meanings:
            link["reftitle"] = meanings[target]


def describe_chapter(app, doctree, docname):
    """Says below a chapter's title how long it takes to read, how long it took to run, and which notebook services
    run it; Sphinx calls it for every page.
    """
    metadata = app.env.metadata[docname]
    if "kernelspec" in metadata:
        facts = [f"{max(1, metadata['wordcount']['minutes'])} min to read"]
        seconds = json.loads(metadata.get("papermill", "{}")).get("duration")
        if seconds is not None:
            facts.append(f"ran in {round(seconds)} s")
        for service, address in SERVICES.items() if app.config.notebook_repository else ():
            place = address.format(f"{app.config.notebook_repository}/blob/notebooks/{docname}.ipynb")
            facts.append(f'<a href="{html.escape(place)}">run in {service}</a>')
        line = f'<p class="times">{" · ".join(facts)}</p>'  # raw, so that it is not taken for the page's first words
        next(doctree.findall(nodes.section)).insert(1, nodes.raw("", line, format="html"))


def collect_meanings(environment):
    """The terms of all glossaries: a dict from a term's place on its page to its meaning, str."""
    terms = environment.get_domain("std").objects
    pages = {page for (kind, _), (page, _) in terms.items() if kind == "term"}
    return {
        place: item[-1].astext()
        for page in pages
        for item in environment.get_doctree(page).findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
        for place in term["ids"]
    }


def setup(app):
    """Registers the extension with Sphinx."""
    ModuleAnalyzer.cache |= {("module", name): PycodeError(f"{name} is mocked") for name in MOCKED_BASES}
    # Sphinx keeps nearly all it makes until it ends. To look through that for garbage takes a third of a build.
    app.connect("builder-inited", lambda _: gc.disable())
    app.connect("build-finished", lambda *_: gc.enable())
    app.connect("doctree-resolved", explain_terms)
    app.connect("doctree-resolved", describe_chapter)
    app.add_config_value("notebook_repository", None, "env", [str])
    app.connect("html-page-context", finish_page, priority=900)  # after all who add to a page
    app.connect("build-finished", lighten_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _is_unused(file):
    if file.filename:
        return str(file.filename).startswith(UNUSED_FILES)
    return file.attributes.get("body", "").startswith(UNUSED_BODY)
