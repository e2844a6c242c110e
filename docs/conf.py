"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "quotaguard"
copyright = "The quotaguard authors"
version = release = installed_version("quotaguard")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # links to headings are checked too
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "code"  # docstrings write `names` as Markdown does
napoleon_use_ivar = True  # attributes are told where the class is told
html_theme = "furo"
html_title = f"quotaguard {version}"
