"""What the site's own Sphinx extension leaves on a page."""

from types import SimpleNamespace

from sphinx.builders.html._assets import _JavaScript

from tlhelpers import site


def scripts_left(*scripts):
    context = {"script_files": list(scripts)}
    site.leave_out_unused(None, "page", "page.html", context, None)
    return context["script_files"]


def test_scripts_of_the_unused_extension_are_left_out_and_others_stay():
    kept = [_JavaScript("_static/togglebutton.js"), _JavaScript("", body="let toggleHint = 'show'")]
    unused = [_JavaScript("_static/sphinx-thebe.js"), _JavaScript("", body='const THEBE_JS_URL = "…"')]
    assert scripts_left(unused[0], kept[0], unused[1], kept[1]) == kept


def test_a_page_without_scripts_stays_as_it_is():
    context = {}
    site.leave_out_unused(None, "page", "page.html", context, None)
    assert context == {}


def test_the_extension_has_the_last_word_on_a_page():
    connected = []
    app = SimpleNamespace(connect=lambda event, handler, priority: connected.append((event, handler, priority)))
    site.setup(app)
    assert [(event, handler) for event, handler, _ in connected] == [("html-page-context", site.leave_out_unused)]
    assert connected[0][2] > 500
