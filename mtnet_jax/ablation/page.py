"""A comparison as one HTML file: plots and tables, nothing to be fetched."""

import base64
import html
from collections.abc import Mapping

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
pre { font-size: 12px; overflow-x: auto; background: #f6f6f6; padding: .8rem; }
figure { display: inline-block; margin: .4rem; vertical-align: top; }
figure img { max-width: 30rem; width: 100%; }
figcaption { font-size: 13px; color: #555; }
"""


def as_page(title: str, text: str, plots: Mapping[str, bytes]) -> str:
    """The page.

    Args:
      title: of the comparison.
      text: the tables, as `tables.as_text` gives them.
      plots: caption -> PNG.
    """
    figures = "".join(
        f'<figure><img alt="{html.escape(caption)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>\n"
        for caption, png in plots.items()
    )
    title = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n{figures}<pre>{html.escape(text)}</pre>\n"
        "</html>\n"
    )
