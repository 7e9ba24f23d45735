"""What nodes mean, told to a page that was written before it was known."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_circuits.circuit.files import write_atomically
from sparse_circuits.errors import FileFormatError
from sparse_circuits.view.explorer.data import clean_meanings, meaning_of, names_in
from sparse_circuits.view.standalone import embedded

_DATA = re.compile(r'(<script type="application/json" id="data">)(.*?)(</script>)', re.DOTALL)


def add_meanings(path: Path, meanings: Mapping[str, Any]) -> Path:
    """Write a page again with what its nodes mean, as :func:`explore` takes it; the rest of it stays as it is.

    Of nodes that are not among ``meanings`` the page keeps what it has. Notes on it are found again.

    Raises:
        FileFormatError: for a file that is no explorer page.
    """
    try:
        before, opening, data, closing, after = _DATA.split(path.read_text(encoding="utf-8"))
        content = json.loads(data)
        names, known = [*names_in(content["nodes"])], dict(content["meanings"])
    except (ValueError, KeyError, TypeError):
        raise FileFormatError(f"{path} is no explorer page.") from None
    found = clean_meanings(meanings, "add_meanings")
    known |= {name: entry for name in names if (entry := meaning_of(found, name)) is not None}
    html = "".join((before, opening, embedded({**content, "meanings": known}), closing, after))
    return write_atomically(path, lambda to: to.write_text(html, encoding="utf-8"))
