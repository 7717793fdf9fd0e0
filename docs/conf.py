"""Sphinx configuration."""

import os
import sys
import tempfile
from pathlib import Path

import rvtrain

here = Path(__file__).parent
sys.path.insert(0, str(here / "_extensions"))

project = "rvtrain"
copyright = "2026, The rvtrain developers"
author = "The rvtrain developers"
release = rvtrain.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "api_links",
    "gallery",
    "svg_math",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Pages of texts and code.
myst_enable_extensions = ["dollarmath", "attrs_inline", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

# The gallery: every page of code cells is run by the build, and a failing cell fails the build.
nb_execution_mode = "force"
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_code_prompt_show = "Show the code of this picture"
nb_code_prompt_hide = "Hide the code of this picture"
# Kernels of the pages: the style of pictures is ours, the builder's own settings of IPython are not read.
ipython = tempfile.TemporaryDirectory(prefix="rvtrain-docs-")
profile = Path(ipython.name, "profile_default")
profile.mkdir()
profile.joinpath("ipython_kernel_config.py").write_text(
    "c.IPKernelApp.log_level = 40\n", "utf-8"
)
os.environ["IPYTHONDIR"] = ipython.name
os.environ["MATPLOTLIBRC"] = str(here / "matplotlibrc")
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
os.environ |= {
    "RVTRAIN_QUIET": "1",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",
}

# The API.
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "py:obj"

# The theme. Nothing is fetched from anywhere when a page is read.
html_theme = "furo"
html_title = f"rvtrain {release}"
html_math_renderer = "svg"
html_static_path = ["_static"]
html_css_files = ["rvtrain.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1d4ed8",
        "color-brand-content": "#1d4ed8",
    },
    "dark_css_variables": {
        "color-brand-primary": "#8ab4ff",
        "color-brand-content": "#8ab4ff",
    },
    "navigation_with_keys": True,
}
pygments_style = "tango"
pygments_dark_style = "monokai"
