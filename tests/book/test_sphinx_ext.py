"""What the site's own Sphinx extension leaves on a page."""

import gc
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from docutils import nodes
from PIL import Image
from sphinx.builders.html._assets import _CascadingStyleSheet, _JavaScript

from tlhelpers.book import sphinx_ext


def finish(**context):
    sphinx_ext.finish_page(None, "page", "page.html", context, None)
    return context


def test_while_pages_are_made_nobody_looks_for_rubbish_and_afterwards_somebody_does():
    handlers = {}
    app = SimpleNamespace(connect=lambda event, call, **_: handlers.setdefault(event, call), add_config_value=print)
    sphinx_ext.setup(app)
    try:
        assert gc.isenabled()
        handlers["builder-inited"](app)
        assert not gc.isenabled()
        handlers["build-finished"](app, None)
        assert gc.isenabled()
    finally:
        gc.enable()


def test_scripts_of_the_unused_extension_are_left_out_and_others_stay():
    kept = [_JavaScript("_static/togglebutton.js"), _JavaScript("", body="let toggleHint = 'show'")]
    unused = [_JavaScript("_static/sphinx-thebe.js?v=1"), _JavaScript("", body='const THEBE_JS_URL = "…"')]
    assert finish(script_files=[unused[0], kept[0], unused[1], kept[1]])["script_files"] == kept


def test_a_page_says_that_nothing_is_taken_from_elsewhere_and_keeps_its_other_tags():
    tags = finish(metatags='<meta name="generator" content="x" />')["metatags"]
    assert tags.endswith('<meta name="generator" content="x" />')
    assert "default-src &#x27;self&#x27; file:;" in tags
    assert not re.search(r"https?:|\*", tags)


def test_style_sheets_of_the_unused_extension_are_left_out():
    kept, unused = _CascadingStyleSheet("_static/book.css"), _CascadingStyleSheet("_static/sphinx-thebe.css?v=4")
    assert finish(css_files=[unused, kept])["css_files"] == [kept]


def test_what_a_page_embeds_is_not_searched_for_the_unused_extension():
    state = [_JavaScript("", type="application/json", body='{"image": "ThEbE…", "text": "const THEBE_JS_URL"}')]
    assert finish(script_files=list(state))["script_files"] == state


def test_scripts_wait_for_the_page_but_not_the_one_that_a_line_in_it_needs():
    page = (
        '<script src="../_static/documentation_options.js?v=9"></script>\n'
        '<script data-prefix="tabs-" src="../_static/design-tabs.js"></script>\n'
        '<script defer src="../_static/scripts/bootstrap.js"></script>\n'
        "<script>DOCUMENTATION_OPTIONS.pagename = 'x'</script>\n"
    )
    assert sphinx_ext.lighten(page) == page.replace("<script data", "<script defer data")


@pytest.mark.parametrize(
    ("failed", "form", "lightened"), [(None, "html", 1), (OSError(), "html", 0), (None, "latex", 0)]
)
def test_pages_are_lightened_when_all_are_written(tmp_path, failed, form, lightened):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page.html").write_text('<script src="a.js"></script>')
    sphinx_ext.lighten_pages(SimpleNamespace(outdir=str(tmp_path), builder=SimpleNamespace(format=form)), failed)
    assert (tmp_path / "book" / "page.html").read_text().count("defer") == lightened


def test_pictures_keep_their_place_free_and_come_when_they_are_scrolled_to(tmp_path):
    (tmp_path / "_images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "_images" / "a b.png")
    (tmp_path / "book").mkdir()
    picture = '<img alt="A" src="../_images/a%20b.png" />'
    others = '<img src="../_static/logo.png"/><img width="5" src="../_images/a%20b.png"/><img src="../_images/x.svg"/>'
    text = sphinx_ext.delay_pictures(picture + others + picture, tmp_path / "book")
    sized = '<img alt="A" src="../_images/a%20b.png" width="40" height="30"{} />'
    assert text == sized.format("") + others + sized.format(' loading="lazy"')


def test_a_page_without_scripts_and_text_is_given_its_policy_alone():
    assert list(finish()) == ["metatags"]


def test_hidden_cells_are_named_by_their_text_and_citations_are_no_broken_list():
    body = finish(
        body='<summary aria-label="Toggle hidden content"><p>Show code cell output</p></summary>'
        '<div role="list" class="citation-list"><div class="citation" role="doc-biblioentry">…</div></div>'
        '<ul role="list"></ul>'
    )["body"]
    assert body == (
        "<summary><p>Show code cell output</p></summary>"
        '<div class="citation-list"><div class="citation">…</div></div><ul role="list"></ul>'
    )


def glossary():
    """What Sphinx knows of a book with one term."""
    term = nodes.term("", "Head", ids=["term-Head"])
    meaning = nodes.definition("", nodes.paragraph("", "The last part."))
    page = nodes.section("", nodes.definition_list("", nodes.definition_list_item("", term, meaning)))
    objects = {("term", "Head"): ("glossary", "term-Head"), ("label", "Other"): ("other", "term-Other")}
    return SimpleNamespace(
        get_domain={"std": SimpleNamespace(objects=objects)}.__getitem__, get_doctree={"glossary": page}.__getitem__
    )


@pytest.mark.parametrize(
    ("place", "title"),
    [
        ({"refuri": "glossary.html#term-Head"}, "The last part."),
        ({"refid": "term-Head"}, "The last part."),
        ({"refuri": "glossary.html#top"}, None),
        ({"refuri": "glossary.html"}, None),
    ],
)
def test_a_link_to_a_term_and_no_other_tells_its_meaning(place, title):
    link = nodes.reference("", "head", **place)
    sphinx_ext.explain_terms(SimpleNamespace(env=glossary()), nodes.section("", link), "page")
    assert link.get("reftitle") == title


def described(metadata, repository=None):
    """A page's section after its chapter was described, with what Sphinx knows of the page."""
    section = nodes.section("", nodes.title("", "A chapter"), nodes.paragraph("", "The text."))
    environment = SimpleNamespace(metadata={"book/01": {"wordcount": {"minutes": 3}} | metadata})
    app = SimpleNamespace(env=environment, config=SimpleNamespace(notebook_repository=repository))
    sphinx_ext.describe_chapter(app, section, "book/01")
    return section


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"kernelspec": "{}", "papermill": '{"duration": 61.7}'}, '<p class="times">3 min to read · ran in 62 s</p>'),
        ({"kernelspec": "{}"}, '<p class="times">3 min to read</p>'),
        ({"kernelspec": "{}", "wordcount": {"minutes": 0}}, '<p class="times">1 min to read</p>'),
        ({}, "The text."),
    ],
)
def test_a_chapter_and_no_other_page_says_how_long_it_takes_below_its_title(metadata, said):
    section = described(metadata)
    assert [part.astext() for part in section[:2]] == ["A chapter", said]


def test_a_chapter_leads_to_its_copy_in_notebook_services_where_the_repository_is_known():
    line = described({"kernelspec": "{}"}, "owner/name")[1].astext()
    copy = "owner/name/blob/notebooks/book/01.ipynb"
    assert line == (
        '<p class="times">3 min to read'
        f' · <a href="https://colab.research.google.com/github/{copy}">run in Colab</a>'
        f' · <a href="https://www.kaggle.com/kernels/welcome?src=https://github.com/{copy}">run in Kaggle</a></p>'
    )


def test_the_extension_has_the_last_word_on_a_page():
    connected = {}

    def connect(event, handler, priority=500):
        connected[handler] = (event, priority)

    sphinx_ext.setup(SimpleNamespace(connect=connect, add_config_value=lambda *_: None))
    assert connected.pop(sphinx_ext.finish_page) == ("html-page-context", 900)
    assert connected.pop(sphinx_ext.lighten_pages) == ("build-finished", 500)
    assert {connected.pop(one) for one in (sphinx_ext.explain_terms, sphinx_ext.describe_chapter)} == {
        ("doctree-resolved", 500)
    }
    assert sorted(connected.values()) == [("build-finished", 500), ("builder-inited", 500)]  # those about garbage


SEARCH_FOR_OVERLOADS = """
import contextlib, inspect, sys
from types import SimpleNamespace
from sphinx.errors import PycodeError
from sphinx.ext.autodoc.mock import mock
from sphinx.pycode import ModuleAnalyzer
import tlhelpers
from tlhelpers.book import sphinx_ext

sphinx_ext.setup(SimpleNamespace(connect=lambda *_, **__: None, add_config_value=lambda *_: None))
with mock(["keras", "tensorflow"]):
    public = [getattr(tlhelpers, name) for names in tlhelpers.PUBLIC.values() for name in names]
classes = [one for one in public if inspect.isclass(one)]
for name in {base.__module__ for one in classes for base in one.__mro__}:
    with contextlib.suppress(PycodeError):
        ModuleAnalyzer.for_module(name)
print(len(classes) > 2, "tensorflow" in sys.modules)
"""


@pytest.mark.slow
def test_the_reference_is_made_without_loading_what_its_classes_are_derived_from():
    done = subprocess.run([sys.executable, "-c", SEARCH_FOR_OVERLOADS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
