"""What the site's own Sphinx extension leaves on a page."""

from types import SimpleNamespace

import pytest
from docutils import nodes
from sphinx.builders.html._assets import _JavaScript

from tlhelpers import site


def finish(**context):
    site.finish_page(None, "page", "page.html", context, None)
    return context


def test_scripts_of_the_unused_extension_are_left_out_and_others_stay():
    kept = [_JavaScript("_static/togglebutton.js"), _JavaScript("", body="let toggleHint = 'show'")]
    unused = [_JavaScript("_static/sphinx-thebe.js?v=1"), _JavaScript("", body='const THEBE_JS_URL = "…"')]
    assert finish(script_files=[unused[0], kept[0], unused[1], kept[1]])["script_files"] == kept


def test_what_a_page_embeds_is_not_searched_for_the_unused_extension():
    state = [_JavaScript("", type="application/json", body='{"image": "ThEbE…", "text": "const THEBE_JS_URL"}')]
    assert finish(script_files=list(state))["script_files"] == state


def test_scripts_wait_for_the_page_but_not_the_one_that_a_line_in_it_needs():
    waits, needed, line = (
        _JavaScript("_static/book.js"),
        _JavaScript("_static/documentation_options.js?v=1"),
        _JavaScript("", body="DOCUMENTATION_OPTIONS.pagename = 'x'"),
    )
    finish(script_files=[waits, needed, line])
    assert [dict(script.attributes) for script in (waits, needed)] == [{"defer": "defer"}, {}]
    assert "defer" not in line.attributes


def test_the_script_that_draws_icons_a_second_time_is_left_out():
    assert finish(script_files=[_JavaScript("_static/scripts/fontawesome.js?digest=1")])["script_files"] == []


def test_a_page_without_scripts_and_text_stays_as_it_is():
    assert finish() == {}


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
    site.explain_terms(SimpleNamespace(env=glossary()), nodes.section("", link), "page")
    assert link.get("reftitle") == title


def described(metadata, repository=None):
    """A page's section after its chapter was described, with what Sphinx knows of the page."""
    section = nodes.section("", nodes.title("", "A chapter"), nodes.paragraph("", "The text."))
    environment = SimpleNamespace(metadata={"book/01": {"wordcount": {"minutes": 3}} | metadata})
    app = SimpleNamespace(env=environment, config=SimpleNamespace(notebook_repository=repository))
    site.describe_chapter(app, section, "book/01")
    return section


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"kernelspec": "{}", "papermill": '{"duration": 61.7}'}, "3 min to read · ran in 62 s"),
        ({"kernelspec": "{}"}, "3 min to read"),
        ({"kernelspec": "{}", "wordcount": {"minutes": 0}}, "1 min to read"),
        ({}, "The text."),
    ],
)
def test_a_chapter_and_no_other_page_says_how_long_it_takes_below_its_title(metadata, said):
    section = described(metadata)
    assert [part.astext() for part in section[:2]] == ["A chapter", said]


def test_a_chapter_leads_to_its_copy_in_notebook_services_where_the_repository_is_known():
    links = list(described({"kernelspec": "{}"}, "owner/name").findall(nodes.reference))
    assert [(link.astext(), link["refuri"]) for link in links] == [
        ("run in Colab", "https://colab.research.google.com/github/owner/name/blob/notebooks/book/01.ipynb"),
        (
            "run in Kaggle",
            "https://www.kaggle.com/kernels/welcome?src=https://github.com/owner/name/blob/notebooks/book/01.ipynb",
        ),
    ]


def test_the_extension_has_the_last_word_on_a_page():
    connected = {}

    def connect(event, handler, priority=500):
        connected[handler] = (event, priority)

    site.setup(SimpleNamespace(connect=connect, add_config_value=lambda *_: None))
    assert connected.pop(site.finish_page) == ("html-page-context", 900)
    assert connected == dict.fromkeys((site.explain_terms, site.describe_chapter), ("doctree-resolved", 500))
