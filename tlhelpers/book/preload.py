"""Imported once by the process that those of a build are copied from: what all of them need is loaded with it."""

from tlhelpers.book import pool

pool.preload()
