"""Printing the book: what is printed, and what is said when it cannot be."""

import pytest

from tlhelpers.book import pdf, toc


def test_pages_are_those_of_the_table_of_contents_in_its_order():
    pages = toc.list_pages()
    assert pages[0] == "book/index"
    assert [f"{page}.ipynb" for page in pages if f"{page}.ipynb" in toc.list_chapters()] == toc.list_chapters()


def test_a_page_that_was_not_built_is_named_and_nothing_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run `make book` first\. Missing: \['book/index'\]"):
        pdf.print_book(tmp_path, tmp_path / "book.pdf", ["book/index"])
    assert not (tmp_path / "book.pdf").exists()


def test_a_machine_without_a_browser_is_told_which_ones_would_do(tmp_path, monkeypatch):
    (tmp_path / "index.html").touch()
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"one of .*chromium.*none of them is installed"):
        pdf.print_book(tmp_path, tmp_path / "book.pdf", ["index"])


def test_the_command_says_what_to_do_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path))
    assert pdf.main() == 1
    assert "run `make book` first" in capsys.readouterr().err
