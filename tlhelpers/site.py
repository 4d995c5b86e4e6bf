"""A Sphinx extension that gives the pages of jupyter-book their last touch: nothing unused, true names for all, the
meaning of a glossary's term wherever it is linked, and what a chapter takes.
"""

import json

from docutils import nodes

# Beginnings of what nothing here uses. The extension sphinx-thebe runs cells on a server elsewhere, and its settings
# come twice and fail the second time. The theme draws its icons a second time with a script of half a megabyte.
UNUSED_FILES, UNUSED_BODY = ("_static/sphinx-thebe.js", "_static/scripts/fontawesome.js"), "const THEBE_JS_URL"
NEEDED_AT_ONCE = "_static/documentation_options.js"  # by a line further down the page

# What opens a notebook that lies on GitHub.
SERVICES = {
    "Colab": "https://colab.research.google.com/github/{}",
    "Kaggle": "https://www.kaggle.com/kernels/welcome?src=https://github.com/{}",
}

# What screen readers are told wrongly, and what they should be told.
CORRECTIONS = {
    '<summary aria-label="Toggle hidden content">': "<summary>",  # its text says more
    '<div role="list" class="citation-list">': '<div class="citation-list">',  # its parts are no list items
    ' role="doc-biblioentry"': "",  # a role that is no longer used
}


def finish_page(app, pagename, templatename, context, doctree):
    """Takes unused scripts off a page, lets the others wait until it is shown, and corrects its roles and labels;
    Sphinx calls it for every page.
    """
    scripts = context.get("script_files", [])
    scripts[:] = [_deferred(script) for script in scripts if not _is_unused(script)]
    if "body" in context:
        context["body"] = correct_roles(context["body"])


def correct_roles(body):
    """A page's HTML, str, with the corrections of `CORRECTIONS`."""
    for wrong, right in CORRECTIONS.items():
        body = body.replace(wrong, right)
    return body


def explain_terms(app, doctree, docname):
    """Gives links to terms their meaning as a title, which shows when the pointer rests on them; Sphinx calls it for
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
        line = nodes.paragraph("", f"{max(1, metadata['wordcount']['minutes'])} min to read", classes=["times"])
        seconds = json.loads(metadata.get("papermill", "{}")).get("duration")
        if seconds is not None:
            line += nodes.Text(f" · ran in {round(seconds)} s")
        for service, address in SERVICES.items() if app.config.notebook_repository else ():
            place = f"{app.config.notebook_repository}/blob/notebooks/{docname}.ipynb"
            line += nodes.Text(" · ")
            line += nodes.reference("", f"run in {service}", refuri=address.format(place))
        next(doctree.findall(nodes.section)).insert(1, line)


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
    app.connect("doctree-resolved", explain_terms)
    app.connect("doctree-resolved", describe_chapter)
    app.add_config_value("notebook_repository", None, "env", [str])
    app.connect("html-page-context", finish_page, priority=900)  # after all who add to a page
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _is_unused(script):
    if script.filename:
        return str(script.filename).startswith(UNUSED_FILES)
    return script.attributes.get("body", "").startswith(UNUSED_BODY)


def _deferred(script):
    """The script, marked to run when the page has been read; scripts so marked keep their order."""
    if script.filename and not str(script.filename).startswith(NEEDED_AT_ONCE):
        script.attributes["defer"] = "defer"
    return script
