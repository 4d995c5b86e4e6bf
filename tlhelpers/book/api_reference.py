"""The reference of this package: its public names by module, whose docstrings Sphinx reads when a site is made."""

import tlhelpers
from tlhelpers import files

TEXT = "api_reference.md"
SECTION = """\
## `{module}`

```{{eval-rst}}
.. automodule:: tlhelpers.{module}
   :members: {names}
   :member-order: bysource
```
"""


def write_reference(folder):
    """Writes what the page of the reference includes: a section for each module that has public names.

    Args:
        folder: Path. Where that page lies.
    """
    sections = [SECTION.format(module=module, names=", ".join(names)) for module, names in tlhelpers.PUBLIC.items()]
    files.write_text(folder / TEXT, "\n".join(sorted(sections)))
