"""Backing: no sentence of the book generalises beyond what the committed records decide."""

import re
import sys
from functools import cache

import pytest

from tlhelpers import settings, weights
from tlhelpers.book import toc
from tlhelpers.results import backing, claims

LISTED = backing.load_backing()
PAGES = [*(chapter.removeprefix("book/") for chapter in toc.list_chapters()), "cheat_sheet.md"]
CLAIMS = sorted({name for one in LISTED if isinstance(one.backing, dict) for name in one.backing})

decide = cache(backing.decide)  # many sentences share a claim, which takes a second


@pytest.mark.parametrize("listed", LISTED, ids=[f"{one.page}: {one.sentence[:40]}" for one in LISTED])
def test_every_sentence_says_what_decides_it(listed):
    if isinstance(listed.backing, str):
        assert listed.backing in backing.WITHOUT_RECORDS
        assert not (listed.backing == backing.ADVICE and listed.page.startswith("quiz "))  # an answer is right or not
    else:
        assert listed.backing
        for name, verdict in listed.backing.items():
            allowed = [backing.PASSES] if name.startswith(backing.TESTS) else claims.VERDICTS[:2]
            assert verdict in allowed


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CLAIMS if not name.startswith(backing.TESTS)])
def test_the_committed_records_decide_a_claim_as_the_sentences_need_it(name):
    finding = decide(name)
    refuted = [
        f"{one.page}: {one.sentence}"
        for one in LISTED
        if isinstance(one.backing, dict) and one.backing.get(name, finding.verdict) != finding.verdict
    ]
    assert refuted == [], finding


@pytest.mark.parametrize("name", [name for name in CLAIMS if name.startswith(backing.TESTS)])
def test_a_test_that_backs_a_sentence_exists(name):
    file, _, function = name.partition("::")
    assert f"\ndef {function}(" in (settings.PROJECT_FOLDER / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_line_of_a_recap_and_of_the_cheat_sheet_is_listed(page):
    listed = {one.sentence for one in LISTED if one.page == page}
    lines = backing.list_lines(page)
    assert lines
    assert [line for line in lines if line not in listed] == []


def test_every_sentence_that_is_listed_stands_on_its_page():
    of_pages = [one for one in LISTED if not one.page.startswith("quiz ")]
    assert {one.page for one in of_pages} == set(PAGES)
    text = {page: backing.read_page(page) for page in PAGES}
    assert [one for one in of_pages if one.sentence not in text[one.page]] == []


def test_every_claim_of_the_book_backs_some_sentence():
    ours = {f"{study}/{claim.name}" for study, rows in backing.BOOK.items() for claim in rows}
    assert sorted(ours - set(CLAIMS)) == []


def test_names_of_the_book_differ_from_those_of_its_sources():
    for study, rows in backing.BOOK.items():
        sources = backing.cross_study.CONCLUSION if study == backing.CONCLUSION else claims.CLAIMS[study]
        names = [claim.name for claim in (*sources, *rows)]
        assert len(names) == len(set(names))


def test_a_claim_that_nobody_made_is_an_error_that_names_those_there_are():
    with pytest.raises(
        ValueError, match=r"A claim about 'flowers' is one of \['baseline-.*Received: name='flowers/no'"
    ):
        backing.decide("flowers/no")


def test_a_sentence_that_the_records_refute_would_be_found(monkeypatch):
    one = backing.Backed("a page", "Unfreezing more always gains.", {"fer2013/all-gains-more": claims.SUPPORTED})
    monkeypatch.setattr(sys.modules[__name__], "LISTED", [one])
    with pytest.raises(AssertionError, match="Unfreezing more always gains"):
        test_the_committed_records_decide_a_claim_as_the_sentences_need_it("fer2013/all-gains-more")


def test_the_lines_of_a_table_are_listed_without_its_head(monkeypatch):
    text = "Text.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\n- One\n  line.\n- Two.\n"
    monkeypatch.setattr(backing, "read_page", lambda page: text)
    assert backing.list_lines("some.md") == ["| 1 | 2 |", "| 3 | 4 |", "One\n  line.", "Two."]


def test_the_pocket_backbones_features_are_worth_more_with_pretraining():
    probed = weights.load_card()["history"]["probe_accuracy"]
    assert probed[-1] > probed[0] + 0.05


@pytest.mark.parametrize("page", ["05_fine_tuning.ipynb", "08_how_deep.ipynb"])
def test_chapters_give_the_one_rule_for_the_rate_from_the_grid(page):
    asked = set(re.findall(r"\{glue:text\}`\w+-(rule-\w+)`", backing.read_page(page)))
    assert asked == {"rule-last", "rule-middle", "rule-all"}
