"""What the site's own Sphinx extension leaves on a page."""

from types import SimpleNamespace

from sphinx.builders.html._assets import _JavaScript

from tlhelpers import site


def finish(**context):
    site.finish_page(None, "page", "page.html", context, None)
    return context


def test_scripts_of_the_unused_extension_are_left_out_and_others_stay():
    kept = [_JavaScript("_static/togglebutton.js"), _JavaScript("", body="let toggleHint = 'show'")]
    unused = [_JavaScript("_static/sphinx-thebe.js"), _JavaScript("", body='const THEBE_JS_URL = "…"')]
    assert finish(script_files=[unused[0], kept[0], unused[1], kept[1]])["script_files"] == kept


def test_what_a_page_embeds_is_not_searched_for_the_unused_extension():
    state = [_JavaScript("", type="application/json", body='{"image": "ThEbE…", "text": "const THEBE_JS_URL"}')]
    assert finish(script_files=list(state))["script_files"] == state


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


def test_the_extension_has_the_last_word_on_a_page():
    connected = []
    app = SimpleNamespace(connect=lambda event, handler, priority: connected.append((event, handler, priority)))
    site.setup(app)
    assert [(event, handler) for event, handler, _ in connected] == [("html-page-context", site.finish_page)]
    assert connected[0][2] > 500
