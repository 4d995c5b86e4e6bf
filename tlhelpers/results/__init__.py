"""From records to tables, verdicts and what is said on pages."""
