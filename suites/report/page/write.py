"""The page of a run: one HTML file that holds everything it shows and loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.models.storage import write_whole
from sparring.suites.report.page.content import content
from sparring.suites.report.study import Study


def write(study: Study, out: str | Path | None = None) -> Path:
    """Write the report of a run to ``out`` (``RUN/report.html`` by default), replacing an earlier one as a whole.

    Nothing is run and nothing else is written. The same run folder gives the same bytes. Raises ``InputError`` where
    stored cells are gone, or the file can't be written.
    """
    path = study.folder / "report.html" if out is None else Path(out)
    if path.is_dir():
        raise InputError(f"--out {path}: this is a folder; name a file in it, such as {path / 'report.html'}")
    with _as_input_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)  # a page takes a while: a bad place fails at once
    page = html(study)
    with _as_input_error(path):
        # a name may hold half of a surrogate pair, which UTF-8 can't encode: it becomes a question mark
        write_whole(path, page.encode("utf-8", "replace"))
    return path


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {path}: can't be written: {error.strerror or error}") from None


def html(study: Study) -> str:
    """The page as text. Raises ``InputError`` where cells are gone."""
    import jinja2
    from markupsafe import Markup

    here = resources.files("sparring.suites.report.page")
    style, script = ((here / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((here / "page.html.j2").read_text("utf-8"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template.render(content(study), style=Markup(style), script=Markup(script), script_digest=digest)
