"""Executes the chapters and builds the site; nothing else imports it."""
