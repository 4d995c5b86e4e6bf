"""From an archive, or a folder, to a table of images with a split."""
