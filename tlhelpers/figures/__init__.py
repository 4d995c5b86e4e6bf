"""What is drawn: curves, bars, galleries, and their lettering."""
