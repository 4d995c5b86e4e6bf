"""From a table of images to a record of what was trained."""
