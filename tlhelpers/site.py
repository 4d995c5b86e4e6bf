"""A Sphinx extension: keeps off the pages what jupyter-book adds to every book and this one does not use."""

UNUSED = "thebe"  # runs cells on a server elsewhere; its script, added twice, fails on every page


def leave_out_unused(app, pagename, templatename, context, doctree):
    """Takes scripts of the unused extension off a page before it is written; Sphinx calls it for every page."""
    scripts = context.get("script_files", [])
    scripts[:] = [script for script in scripts if not _is_unused(script)]


def setup(app):
    """Registers the extension with Sphinx."""
    app.connect("html-page-context", leave_out_unused, priority=900)  # after all who add to a page
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _is_unused(script):
    return UNUSED in f"{script.filename} {script.attributes.get('body', '')}".lower()
