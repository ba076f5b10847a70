"""A document as PDF. The same document gives the same bytes, whenever it is rendered."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fpdf import FPDF
from fpdf.enums import XPos, YPos

from tokenworks.core.price import as_read

MARGIN = 16.0
ROW = 5.0
TITLES = {"invoice": "Invoice", "credit_note": "Credit note"}
# Millimetres of an A4 page between the margins.
_WIDTHS = (60.0, 28.0, 28.0, 34.0, 28.0)
_HEADS = ("Model, tier", "Kind", "Quantity", "Rate USD", "Amount USD")
_TEXTS = 2
"""So many columns of them are no numbers."""
_KINDS = {
    "cached_input": "cached input",
    "cache_write": "cache write",
    "cache_write_1h": "cache write, 1 h",
    "input_audio": "input, audio",
    "input_image": "input, image",
    "output_audio": "output, audio",
    "output_image": "output, image",
    "priced_requests": "requests",
    "audio_ms": "audio, seconds",
    "gpu_ms": "GPU, seconds",
}


class Paper(FPDF):
    def __init__(self, document: dict[str, Any], font: Path | None) -> None:
        super().__init__(format="A4")
        self.set_margin(MARGIN)
        self.set_auto_page_break(True, MARGIN + 8)
        self.set_creation_date(datetime.fromtimestamp(document.get("issued_at") or 0, UTC))
        self.set_title(_title(document))
        self._document = document
        self._face = "helvetica"
        self._every_script = font is not None
        if font is not None:
            self._face = "own"
            for style in ("", "B"):
                self.add_font(self._face, style, font)

    def face(self, size: float, *, bold: bool = False, gray: int = 0) -> None:
        self.set_font(self._face, "B" if bold else "", size)
        self.set_text_color(gray)

    def put(self, width: float, text: str, *, align: str = "L", last: bool = False) -> None:
        """One cell. A text that is too long is cut with a sign; a number, to the right, is set smaller."""
        text = self.known(text)
        while align == "R" and self.get_string_width(text) > width - 2:
            self.set_font_size(self.font_size_pt - 0.5)
        if self.get_string_width(text) > width - 2:
            while text and self.get_string_width(text + "...") > width - 2:
                text = text[:-1]
            text += "..."
        ends = (XPos.LMARGIN, YPos.NEXT) if last else (XPos.RIGHT, YPos.TOP)
        self.cell(width, ROW, text, align=align, new_x=ends[0], new_y=ends[1])

    def known(self, text: str) -> str:
        """What the built-in font cannot show becomes a question mark; JSON and CSV have it."""
        return (
            text if self._every_script else text.encode("cp1252", "replace").decode("cp1252").replace("\u20ac", "EUR")
        )

    def footer(self) -> None:
        self.set_y(-MARGIN)
        self.face(8, gray=110)
        self.put(self.epw / 2, _title(self._document))
        self.put(self.epw / 2, f"Page {self.page_no()} of {{nb}}", align="R")


def render(document: dict[str, Any], font: Path | None = None) -> bytes:
    paper = Paper(document, font)
    paper.add_page()
    _head(paper, document)
    if document["object"] == "invoice":
        _table(paper, document["lines"])
        _refunds(paper, document["refunds"])
    else:
        _reason(paper, document)
    _sums(paper, document)
    paper.ln(6)
    paper.face(8, gray=110)
    paper.multi_cell(0, 4, paper.known(document["rounding"]))
    return bytes(paper.output())


def _title(document: dict[str, Any]) -> str:
    if document["number"] is None:
        return f"Draft of the invoice for {document['month']}"
    return f"{TITLES[document['object']]} {document['number']}"


def _head(paper: Paper, document: dict[str, Any]) -> None:
    paper.face(18, bold=True)
    paper.cell(0, 10, _title(document), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    facts = [f"Usage in {document['month']} (UTC)"]
    if document.get("issued_at"):
        facts.append(f"issued {datetime.fromtimestamp(document['issued_at'], UTC):%Y-%m-%d}")
    if document.get("corrects"):
        facts.append(f"corrects {document['corrects']}")
    paper.face(10, gray=80)
    paper.cell(0, 6, ", ".join(facts), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    paper.ln(4)
    parties = [_address(document["seller"]), _address(document["customer"])]
    half = paper.epw / 2
    for number in range(max(map(len, parties))):
        paper.face(10, bold=number == 0)
        for party, last in zip(parties, (False, True), strict=True):
            paper.put(half, party[number] if number < len(party) else "", last=last)
    paper.ln(5)


def _address(party: dict[str, Any]) -> list[str]:
    tax_id = party.get("tax_id")
    more = [*party.get("lines", []), party.get("email"), tax_id and f"Tax id {tax_id}"]
    return [party["name"], *(line for line in more if line)]


def _table(paper: Paper, lines: Sequence[dict[str, Any]]) -> None:
    _row(paper, _HEADS, bold=True)
    before = ("", "")
    for line in lines:
        if paper.will_page_break(3 * ROW):
            paper.add_page()
            _row(paper, _HEADS, bold=True)
            before = ("", "")
        place = (line["project"] or line["project_id"], line["key"] or line["key_id"])
        if place != before:
            paper.ln(1)
            paper.face(9, gray=80)
            paper.put(paper.epw, f"Project {place[0]}, key {place[1]}", last=True)
        tier = "" if line["tier"] == "standard" else f", {line['tier']}"
        kind = _KINDS.get(line["kind"], line["kind"])
        quantity, rate = as_read(line["kind"], line["quantity"], line["usd_per_million"] or "0")
        rate = rate if line["usd_per_million"] else "various"
        _row(paper, (line["model"] + tier, kind, quantity, rate, _money(line["amount_usd"])))
        before = place


def _money(usd: str) -> str:
    """All decimals that there are, and two at least."""
    whole, _, part = usd.partition(".")
    return f"{whole}.{part:0<2}"


def _row(paper: Paper, cells: Sequence[str], *, bold: bool = False) -> None:
    for number, (width, text) in enumerate(zip(_WIDTHS, cells, strict=True)):
        paper.face(9, bold=bold)
        paper.put(width, text, align="L" if number < _TEXTS else "R", last=number == len(_WIDTHS) - 1)
    if bold:
        paper.set_draw_color(160)
        paper.line(paper.l_margin, paper.get_y(), paper.l_margin + paper.epw, paper.get_y())


def _refunds(paper: Paper, refunds: Sequence[dict[str, Any]]) -> None:
    for refund in refunds:
        paper.face(9)
        paper.put(paper.epw - _WIDTHS[-1], f"Refund of {refund['request_id']}: {refund['reason']}")
        paper.put(_WIDTHS[-1], f"-{refund['amount_usd']}", align="R", last=True)


def _reason(paper: Paper, document: dict[str, Any]) -> None:
    paper.face(10)
    about = f" Request {document['request_id']}." if document["request_id"] else ""
    paper.multi_cell(0, ROW, paper.known(f"{document['reason']}{about}"), new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _sums(paper: Paper, document: dict[str, Any]) -> None:
    tax = document["tax"]
    rate = f"{tax['basis_points'] / 100:g} %"
    if document["object"] == "credit_note":
        sums = [("Credited", document["net"]), (f"Tax {rate}", tax), ("Total credited", document["total"])]
    else:
        sums = [("Usage", document["charged"])]
        if document["refunded"]["nano_usd"]:
            sums.append(("Refunds", {"usd": f"-{document['refunded']['usd']}"}))
        sums += [(f"Tax {rate}", tax), ("Total", document["total"])]
        sums += [("Paid from the balance", document["paid_from_balance"]), ("Amount due", document["due"])]
    paper.ln(2)
    for number, (name, amount) in enumerate(sums):
        paper.face(10, bold=number == len(sums) - 1)
        paper.put(paper.epw - 40, name, align="R")
        paper.put(40, f"{_money(amount['usd'])} USD", align="R", last=True)
