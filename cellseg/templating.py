"""Templating: how every HTML page of ours is made from a template of `cellseg/templates`.

What stands on a page is decided in `cellseg.report`, `cellseg.pages` and `cellseg.comparison`.
"""

import jinja2


def environment() -> jinja2.Environment:
    """Templates of the package: whatever is put in is escaped, and a name that is missing is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("cellseg"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
