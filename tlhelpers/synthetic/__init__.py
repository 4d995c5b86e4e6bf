"""Images made by rule: they know no study."""
