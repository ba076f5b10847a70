"""What the redactor knows by name. Patterns find what looks like it, a check keeps what is.

Patterns of keys are those that their issuers document; cards and account numbers are known by their own check digits,
telephone numbers by libphonenumber's data of those that can be dialled.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import ip_address

import phonenumbers

from tokenworks.redaction.patterns import Pattern

Check = Callable[[str], int]
"""Length of what of a match is really one, from its start; 0: none of it."""

LONGEST = 4_096
"""Bytes of a match, in UTF-8. What is longer is not found, or found up to here."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern of an entity. `entity` in upper case, as placeholders name it."""

    entity: str
    pattern: Pattern
    check: Check | None = None


def _luhn(text: str) -> int:
    digits = [int(char) for char in reversed(text) if char.isdigit()]
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[1::2]]
    return len(text) if any(digits) and (sum(digits[::2]) + sum(doubled)) % 10 == 0 else 0


def _iban(text: str) -> int:
    """With spaces the pattern may have taken a word too many: the longest beginning that is one."""
    ends = [at for at in range(len(text), 0, -1) if at == len(text) or text[at] == " "]
    for end in ends:
        plain = text[:end].replace(" ", "").upper()
        if 15 <= len(plain) <= 34 and int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1:
            return end
    return 0


def _address(text: str) -> int:
    try:
        ip_address(text)
    except ValueError:
        return 0
    return len(text)


def _ssn(text: str) -> int:
    area, group, serial = re.split(r"[- ]", text)
    return 0 if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000" else len(text)


@lru_cache(4096)
def _phone(regions: tuple[str, ...], text: str) -> int:
    """The longest beginning that ends with a group of digits and can be dialled."""
    for end in [each.end() for each in re.finditer(r"\d+", text)][::-1]:
        for region in (None,) if text.startswith("+") else regions:
            if region is None or _dialled(region, text[:end]):
                try:
                    if phonenumbers.is_valid_number(phonenumbers.parse(text[:end], region)):
                        return end
                except phonenumbers.NumberParseException:
                    continue
    return 0


def _dialled(region: str, text: str) -> bool:
    """Whether it is worth asking: as long as numbers within the region are, and with the prefix they need there."""
    digits = re.sub(r"\D", "", text)
    lengths, prefix = _numbering(region)
    return len(digits) in lengths and digits.startswith(prefix) and re.fullmatch(r"\d{4}-\d\d-\d\d", text) is None


@lru_cache
def _numbering(region: str) -> tuple[frozenset[int], str]:
    """(lengths in digits, the prefix)"""
    known = phonenumbers.PhoneMetadata.metadata_for_region(region)
    if known is None or known.general_desc is None:
        return frozenset(), ""
    prefix = known.national_prefix or ""
    lengths = [length for length in known.general_desc.possible_length if length >= 7]
    with_prefix = {length + len(prefix) for length in lengths}
    if known.country_code == 1:  # it may be left out
        return frozenset({*lengths, *with_prefix}), ""
    return frozenset(with_prefix), prefix


_EMAIL = r"\b[A-Za-z0-9](?:[A-Za-z0-9._%+'-]{0,63})@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9-]{1,63}){1,8}\b"
_CARDS = (
    r"\b\d{4}([ -]\d{4}){4}\b",
    r"\b\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{1,3}\b",
    r"\b\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}\b",
    r"\b\d{4}[ -]\d{6}[ -]\d{4,5}\b",
    r"\b[1-9]\d{12,18}\b",
)
_KEYS = (
    r"\bsk-(?:tw|proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{16,250}",  # ours, OpenAI, Anthropic, OpenRouter
    r"\bsk-[A-Za-z0-9]{20,200}",
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",  # AWS
    r"\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36,255}",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9_]{22,255}",
    r"\bglpat-[A-Za-z0-9_-]{20,64}",  # GitLab
    r"\bxox[abeprs]-[A-Za-z0-9-]{10,250}",  # Slack
    r"\bAIza[A-Za-z0-9_-]{35}",  # Google
    r"\bhf_[A-Za-z0-9]{30,64}",  # Hugging Face
    r"\bgsk_[A-Za-z0-9]{40,80}",  # Groq
    r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}",  # Stripe
    r"\bwhsec_[A-Za-z0-9+/=]{24,96}",
)
_AWS_LONG = r"(?i)aws.{0,20}?(?:secret|private).{0,20}?['\"=: ]{1,4}[a-z0-9/+]{40}\b"
_JWT = r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----\s*(?:(?:Proc-Type|DEK-Info|Version|Comment):[^\n]*\s+)*"
    r"[A-Za-z0-9+/=\s]*(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
)
_IBAN = (r"\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b", r"\b[A-Z]{2}\d{2}(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?\b")
_IPV6 = r"\b(?:[0-9A-Fa-f]{1,4}::?){2,7}[0-9A-Fa-f]{1,4}\b"
_PHONE = r"\+?\(?\b\d(?:[ ()./-]{0,3}\d){6,14}\b"

_KNOWN: dict[str, list[tuple[tuple[str, ...], Check | None]]] = {
    "private_key": [((_PRIVATE_KEY,), None)],
    "jwt": [((_JWT,), None)],
    "api_key": [((*_KEYS, _AWS_LONG), None)],
    "email": [((_EMAIL,), None)],
    "iban": [(_IBAN, _iban)],
    "credit_card": [(_CARDS, _luhn)],
    "us_ssn": [((r"\b\d{3}-\d{2}-\d{4}\b", r"\b\d{3} \d{2} \d{4}\b"), _ssn)],
    "ip_address": [((r"\b(?:\d{1,3}\.){3}\d{1,3}\b", _IPV6), _address)],
}
ENTITIES = (*_KNOWN, "phone")
"""In the order in which they are preferred, where two begin at the same place and are of the same length."""


def phone_region(name: str) -> bool:
    return name in phonenumbers.SUPPORTED_REGIONS


@lru_cache(64)
def rules(
    entities: Sequence[str], phone_regions: tuple[str, ...], own: tuple[tuple[str, str], ...]
) -> tuple[Rule, ...]:
    """Of entities by name, and of (name, pattern) pairs of the operator's own. ValueError as Pattern."""
    found = [Rule(name.upper(), Pattern(text)) for name, text in own]
    for name in (each for each in ENTITIES if each in entities):
        if name == "phone":
            found.append(Rule("PHONE", Pattern(_PHONE), partial(_phone, phone_regions)))
        for texts, check in _KNOWN.get(name, ()):
            found += [Rule(name.upper(), Pattern(text), check) for text in texts]
    return tuple(found)
