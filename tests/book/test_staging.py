"""Laying out what jupyter-book reads, and building the site from it."""

import nbformat
import pytest
import yaml
from builders import executed_cell, stream
from nbformat import v4

from tlhelpers import settings
from tlhelpers.book import execution, frontpage, programs, staging

BADGE = '<dl class="run-badge">the machine</dl>'


def html_output(text):
    return v4.new_output("display_data", {"text/html": text})


@pytest.fixture
def staged(monkeypatch, tmp_path):
    """A project of one page and one chapter, whose executed copy shows a table and then its badge."""
    project = tmp_path / "project"
    for name in ("_toc.yml", "book/index.md", "book/01.ipynb", "book/.cache/x", "book/_static/book.css"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    (project / "_config.yml").write_text("title: A book\nhtml:\n  use_edit_page_button: true\n")
    monkeypatch.setattr(settings, "PROJECT_FOLDER", project)
    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path))
    monkeypatch.setattr(programs, "copy_programs", lambda folder: (folder / "program.js").touch())
    monkeypatch.setattr(frontpage, "write_result", lambda folder: (folder / "result.md").touch())
    (tmp_path / "source" / "book").mkdir(parents=True)
    executed = executed_cell(stream("stdout", "1"), html_output("<table></table>"), html_output(BADGE))
    nbformat.write(executed, tmp_path / "source" / "book" / "01.ipynb")
    return tmp_path / "source"


def test_staging_copies_what_the_site_reads_beside_the_executed_chapters_and_nothing_hidden(staged):
    executed = (staged / "book" / "01.ipynb").read_text()
    staging.stage_source(["book/01.ipynb"])
    found = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    copied = {"_config.yml", "_toc.yml", "book/index.md", "book/01.ipynb", "book/_static/book.css"}
    made = {"book/_static/program.js", "book/result.md", "book/execution_report.md", "book/api_reference.md"}
    assert found == copied | made
    assert (staged / "book" / "01.ipynb").read_text() == executed


def test_what_is_gone_from_the_book_leaves_the_staged_one(staged):
    staging.stage_source(["book/01.ipynb"])
    (settings.PROJECT_FOLDER / "book" / "_static" / "book.css").unlink()
    (staged / "book" / "99_removed.ipynb").touch()
    staging.stage_source(["book/01.ipynb"])
    assert not (staged / "book" / "_static" / "book.css").exists()
    assert not (staged / "book" / "99_removed.ipynb").exists()
    assert (staged / "book" / "01.ipynb").is_file()


def test_exported_models_are_laid_out_anew_by_each_build(staged):
    model = settings.exports_folder() / "deep" / "model.tflite"
    model.parent.mkdir(parents=True)
    for content in ("first", "second"):
        model.write_text(content)
        staging.stage_source(["book/01.ipynb"])
        assert (staged / "book" / "_static" / "exported" / "deep" / "model.tflite").read_text() == content


def test_foot_of_every_page_is_the_badge_of_the_first_chapter(staged):
    staging.stage_source(["book/01.ipynb"])
    config = yaml.safe_load((staged / "_config.yml").read_text())
    assert config == {"title": "A book", "html": {"use_edit_page_button": True, "extra_footer": BADGE}}


def test_a_published_site_names_its_address_and_a_repository_of_another_form_is_refused():
    config = {
        "title": "A book",
        "html": {},
        "sphinx": {"extra_extensions": ["tlhelpers.book.sphinx_ext"], "config": {"numfig": True}},
    }
    staging.add_publishing(config, "Owner/some.name")
    assert (
        config["html"]["baseurl"] == config["sphinx"]["config"]["ogp_site_url"] == "https://owner.github.io/some.name/"
    )
    assert config["sphinx"]["extra_extensions"][0] == "tlhelpers.book.sphinx_ext"
    assert config["sphinx"]["config"]["numfig"]
    assert config["sphinx"]["config"]["ogp_site_name"] == "A book"
    with pytest.raises(ValueError, match=r"A repository is written owner/name\. Received: 'owner'"):
        staging.add_publishing(config, "owner")


@pytest.fixture
def builds(staged, tmp_path, monkeypatch):
    """What stands for jupyter-book: a list of the sites it has built; each holds how many there were before it."""
    staging.stage_source(["book/01.ipynb"])
    done = []

    def build(folder):
        newer = folder / "next"
        newer.mkdir()
        (newer / "index.html").write_text(f"{len(done)}")
        done.append(newer)
        return newer

    (settings.PROJECT_FOLDER / "requirements.txt").touch()
    monkeypatch.setattr(staging, "_run_jupyter_book", build)
    return done


def test_a_site_that_is_up_to_date_is_not_built_again(builds, staged):
    assert staging.build_site() == staging.build_site()
    staging.stage_source(["book/01.ipynb"], executed=[])  # the report now says that the chapter was kept
    assert staging.build_site().read_text() == "0"
    assert len(builds) == 1


def test_a_changed_page_or_lock_file_builds_the_site_again(builds, staged):
    staging.build_site()
    (staged / "book" / "index.md").write_text("changed")
    assert staging.build_site().read_text() == "1"
    (settings.PROJECT_FOLDER / "requirements.txt").write_text("sphinx==1")
    assert staging.build_site().read_text() == "2"


def test_a_changed_module_in_a_room_builds_the_site_again(builds, staged, monkeypatch, tmp_path):
    module = tmp_path / "package" / "room" / "one.py"
    module.parent.mkdir(parents=True)
    module.write_text('"""Before."""')
    monkeypatch.setattr(settings, "PACKAGE_FOLDER", tmp_path / "package")
    staging.build_site()
    module.write_text('"""After."""')
    assert staging.build_site().read_text() == "1"


def test_the_last_good_site_stays_when_the_next_one_fails(builds, staged, monkeypatch):
    site = staging.build_site()
    (staged / "book" / "index.md").write_text("changed")

    def fail(folder):
        raise execution.ChapterError("jupyter-book ended with exit status 1")

    monkeypatch.setattr(staging, "_run_jupyter_book", fail)
    with pytest.raises(execution.ChapterError, match="exit status 1"):
        staging.build_site()
    assert site.read_text() == "0"
    with pytest.raises(execution.ChapterError):
        staging.build_site()  # and is not taken for what the changed page would give


def test_a_build_killed_between_two_sites_leaves_the_older_one_to_be_taken_back(builds, staged, monkeypatch):
    site = staging.build_site()
    (staged / "book" / "index.md").write_text("changed")
    monkeypatch.setattr(staging, "_run_jupyter_book", lambda folder: folder / "nowhere")
    with pytest.raises(FileNotFoundError):
        staging.build_site()
    assert not site.exists()
    staging.restore_site()
    assert site.read_text() == "0"
    staging.restore_site()  # and there is nothing to do for the one that follows
    assert site.read_text() == "0"


def test_pages_that_are_no_more_are_not_in_the_next_site(builds, staged):
    site = staging.build_site()
    (site.parent / "old.html").touch()
    (staged / "book" / "index.md").write_text("changed")
    staging.build_site()
    assert not (site.parent / "old.html").exists()
    assert sorted(path.name for path in site.parent.parent.glob("html*")) == ["html"]
