"""What a candidate looks like: one alternation for everything, so that a column is searched once.

The syntax is Rust's regex as polars speaks it: linear time whatever the input, no look-around. A match is only a
candidate; `candidates` sorts it by its bytes and `checks` verifies it. Alternatives that find nothing personal
(UUIDs, dates, long fractions) stand here so that the digits inside them are not taken for something else.
"""

from __future__ import annotations

import re

_B = r"(?-u:\b)"

_CREDENTIAL = (
    "(?:[Pp]assword|PASSWORD|[Pp]asswd|[Ss]ecret(?:[_-]?(?:[Aa]ccess[_-]?)?[Kk]ey)?|SECRET(?:_(?:ACCESS_)?KEY)?"
    "|[Aa]pi[_-]?[Kk]ey|API_KEY)"
)

_SECRETS = (
    r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY",
    r"(?:AccountKey|SharedAccessKey|SharedAccessSignature)=[A-Za-z0-9+/=%]{20,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    rf"{_B}(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{{16}}{_B}",
    rf"{_B}gh[pousr]_[A-Za-z0-9]{{36,}}",
    rf"{_B}github_pat_[A-Za-z0-9_]{{22,}}",
    rf"{_B}(?:xox[abeoprs]|xapp|xwfp)-[A-Za-z0-9-]{{10,}}",
    rf"{_B}AIza[A-Za-z0-9_-]{{35}}",
    rf"{_B}(?:[sr]k_(?:live|test)_|sk-|glpat-|npm_|hf_|pypi-|dckr_pat_)[A-Za-z0-9_-]{{20,}}",
    rf"""{_CREDENTIAL}["']?[ \t]*[:=][ \t]*["']?[^\s"',;]{{3,}}[0-9!@#$%^*+=-][^\s"',;]{{2,}}""",
)

# Anchored and unbounded: a bounded run that may begin anywhere makes the automaton explode on random letters.
_URL = rf"""{_B}[A-Za-z][A-Za-z0-9+.-]+://[^\s"'<>]+|{_B}www\.[A-Za-z0-9-]+\.[^\s"'<>]+"""
_EMAIL = r"[\pL\pN._%+'-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+"

# Three groups of four hex digits, as routers write a device's address. Digits alone are other things far more often,
# and letters alone are words: the first group has a digit, and one of them a letter.
_HEX, _D4 = "[0-9A-Fa-f]", "[0-9]{4}"
_LETTERED = "|".join(rf"[0-9]{{{n}}}[A-Fa-f]{_HEX}{{{3 - n}}}" for n in range(4))
_MIXED = "|".join((*_LETTERED.split("|")[1:], *(rf"[A-Fa-f]{{{n}}}[0-9]{_HEX}{{{3 - n}}}" for n in range(1, 4))))
_GROUPED = rf"(?:{_MIXED})(?:\.{_HEX}{{4}}){{2}}|{_D4}\.(?:{_LETTERED})\.{_HEX}{{4}}|{_D4}\.{_D4}\.(?:{_LETTERED})"

_NETWORK = (
    rf"{_B}[0-9A-Fa-f]{{8}}-[0-9A-Fa-f]{{4}}-[0-9A-Fa-f]{{4}}-[0-9A-Fa-f]{{4}}-[0-9A-Fa-f]{{12}}{_B}",
    rf"{_B}[0-9A-Fa-f]{{2}}(?:[:-][0-9A-Fa-f]{{2}}){{5}}{_B}",
    rf"{_B}(?:{_GROUPED}){_B}",
    rf"{_B}(?:[0-9A-Fa-f]{{1,4}}:){{7}}[0-9A-Fa-f]{{1,4}}{_B}",
    rf"{_B}(?:[0-9A-Fa-f]{{1,4}}:){{1,6}}(?::[0-9A-Fa-f]{{1,4}}){{1,6}}{_B}",
)

_DATE = (
    rf"{_B}(?:18|19|20)[0-9]{{2}}[-/.][0-9]{{1,2}}[-/.][0-9]{{1,2}}"
    rf"(?:[T ][0-9]{{1,2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:[.,][0-9]+)?)?)?(?:Z|[+-][0-9]{{2}}:?[0-9]{{2}})?{_B}",
    rf"{_B}[0-9]{{1,2}}[-/.][0-9]{{1,2}}[-/.](?:19|20)[0-9]{{2}}{_B}",
)

_CODES = (
    rf"{_B}[A-Za-z]{{2}}[0-9]{{2}}(?:[ -]?[A-Za-z0-9]{{4}}){{2,7}}(?:[ -]?[A-Za-z0-9]{{1,3}})?{_B}",
    rf"{_B}[STFGMstfgm][0-9]{{7}}[A-Za-z]{_B}",
    rf"{_B}[A-Za-z]{{5}}[0-9]{{4}}[A-Za-z]{_B}",
    rf"{_B}[A-Za-z]{{2}} ?[0-9]{{2}} ?[0-9]{{2}} ?[0-9]{{2}} ?[A-Da-d]{_B}",
    rf"{_B}[A-Za-z]{{6}}[0-9]{{2}}[A-Za-z][0-9]{{2}}[A-Za-z][0-9]{{3}}[A-Za-z]{_B}",
    rf"{_B}[0-9]{{7,8}}-?[A-Za-z]{_B}",
    rf"{_B}[0-9]{{6}}(?:-[0-9]{{3}}[A-Ya-y]|[A-FU-Ya-fu-y][0-9]{{3}}[0-9A-Ya-y]){_B}",
    rf"{_B}[0-9]{{6}}[ABab][0-9]{{8}}{_B}",
    rf"{_B}(?:{'|'.join(f'[A-Za-z]{{{n}}}[0-9]{{{11 - n}}}' for n in range(5, 0, -1))})"
    rf"[A-Za-z][A-Za-z0-9][0-9][A-Za-z]{{2}}{_B}",
    rf"{_B}[0-9]{{7}}[A-Wa-w][A-IWa-iw]?{_B}",
    rf"{_B}[XYZxyz]-?[0-9]{{7}}-?[A-Za-z]{_B}",
    rf"{_B}0x[0-9A-Fa-f]{{40}}{_B}",
    rf"{_B}bc1[02-9ac-hj-np-z]{{25,60}}{_B}",
    rf"{_B}[13][1-9A-HJ-NP-Za-km-z]{{25,34}}{_B}",
)

_NUMBERS = (
    rf"-?{_B}[0-9]{{1,3}}\.[0-9]{{4,}}\s*,\s*-?[0-9]{{1,3}}\.[0-9]{{4,}}{_B}",
    rf"{_B}[0-9]{{2}}\.[0-9]{{3}}\.[0-9]{{3}}\.[0-9]-?[0-9]{{3}}\.[0-9]{{3}}{_B}",
    rf"{_B}[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3,}}{_B}",
    rf"{_B}[0-9]+\.[0-9]{{5,}}{_B}",
    rf"(?:{_B}[A-Za-z][A-Za-z0-9]{{0,11}}[-_#:]?)?[+(]?{_B}[0-9](?:[ ./()-]{{0,2}}[0-9]){{6,}}"
    rf"(?: ?(?:x|ext\.?) ?[0-9]{{1,6}})?{_B}",
    rf"{_B}[A-Za-z]{{1,12}}[0-9]{{9,19}}{_B}",
)

RARE_FORMS = (
    "L9999999L",
    "LLLLL9999L",
    "LL ?99 ?99 ?99 ?L",
    "LLLLLL99L99L999L",
    "99999999-?L",
    "L-?9999999-?L",
    "999999-999L",
    "999999L999A",
    "9999999-?L",
    "9999999LL",
    "999999L99999999",
    *("L" * n + "9" * (11 - n) + "LA9LL" for n in range(5, 0, -1)),
)
"""Codes of `_CODES` other than IBANs and crypto addresses: L a letter, 9 a digit, A either, `?` after what may be
missing."""

HINTED = (*_SECRETS, _URL)
"""Secrets and web addresses, which are searched for in Python alone."""

HINTS = (
    "://", "www.", "-----BEGIN", "Key=", "Signature=", "eyJ", "AKIA", "ABIA", "ACCA", "ASIA", "ghp_", "gho_", "ghu_",
    "ghs_", "ghr_", "github_pat_", "xox", "xapp-", "xwfp-", "AIza", "k_live_", "k_test_", "sk-", "glpat-", "npm_",
    "hf_", "pypi-", "dckr_pat_", "assword", "ASSWORD", "asswd", "ecret", "SECRET", "pi_key", "pi-key", "pikey",
    "piKey", "pi_Key", "pi-Key", "API_KEY",
)  # fmt: skip
"""Texts of which one stands in all that is HINTED."""

HINT_MARKS = ":.-=_A"
"""Bytes of which one stands in all that is HINTED."""

LEAST_DIGITS = 2
"""Cells with fewer digits and no @, colon, four dashes, or a digit and two dots hold nothing but what `HINTS` tell
of."""

ALL = "|".join(f"(?:{part})" for part in (*_SECRETS, _URL, _EMAIL, *_NETWORK, *_DATE, *_CODES, *_NUMBERS))
"""Everything that may be something, as one alternation; the first alternative that matches at a place wins."""

PERHAPS_IBAN = rf"{_B}(?:[A-Za-z]{{2}}|[A-Z]{{2}} )[0-9]{{2}}(?:[ .-]?[A-Za-z0-9]){{11}}"
"""Matches wherever an IBAN is that `ibans` would take out of its cell."""

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

ADDRESSES = (
    ("EMAIL_ADDRESS", rf"^{_EMAIL}$"),
    ("MAC_ADDRESS", r"^[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})$"),
    ("IP_ADDRESS", rf"^{_OCTET}(?:\.{_OCTET}){{3}}$"),
    ("IP_ADDRESS", r"^(?:[0-9A-Fa-f]|[0-9A-Fa-f]{3,4}):(?:[0-9A-Fa-f]{1,4}:){6}[0-9A-Fa-f]{1,4}$"),
)
"""Cells that are one address and nothing else, e-mail addresses unless `NO_ADDRESS` matches.

No alternative of `ALL` that comes before an address' own matches where such a cell begins. Addresses of IP version 6
whose first group has two digits are left out: six such groups are taken for a MAC address.
"""

DECIDED_BY_DIGITS = "|".join((
    "AKIA|ASIA|ABIA|ACCA",
    "[0-9A-Za-z]{26}",
    *(re.sub(r"\(\?:[0-9|]+\)", "[0-9]{2}", part) for part in _DATE),
))  # fmt: skip
"""Found wherever other digits could make another alternative of `ALL` match: keys of Amazon, cryptocurrency addresses,
and dates, whose centuries are few."""

INSIDE_URL = "|".join(f"(?:{part})" for part in (*_SECRETS, _EMAIL, *_CODES, *_NUMBERS))
"""What is looked for again inside a web address."""

AT_SIGN = "@"
WEB_ADDRESS = r"://|^www\.[A-Za-z0-9-]+\."
EXTENSION = r" ?(?:x|ext\.?) ?[0-9]{1,6}$"
"""The extension behind a telephone number."""

INSIDE_PHRASE = "|".join((
    rf"{_B}[0-9]{{4}}[ -][0-9]{{4}}[ -][0-9]{{4}}[ -][0-9]{{4}}{_B}",
    rf"{_B}[0-9]{{4}}[ -][0-9]{{6}}[ -][0-9]{{5}}{_B}",
    rf"{_B}[0-9]{{3}}-[0-9]{{2}}-[0-9]{{4}}{_B}",
    rf"\([0-9]{{2,4}}\) ?[0-9]{{3,4}}[ -]?[0-9]{{3,4}}{_B}",
    rf"{_B}[0-9]{{9,19}}{_B}",
))  # fmt: skip
"""What is looked for again inside a phrase of digits that is nothing as a whole, such as "qty 5 4111 1111 ..."."""

SECRET_KINDS = {
    "PRIVATE_KEY": r"^-----BEGIN ",
    "CONNECTION_STRING": r"^(?:AccountKey|SharedAccessKey|SharedAccessSignature)=",
    "JWT": r"^eyJ[A-Za-z0-9_-]{8,}\.eyJ",
    "AWS_ACCESS_KEY": r"^(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}$",
    "GITHUB_TOKEN": r"^(?:gh[pousr]_|github_pat_)",
    "SLACK_TOKEN": r"^(?:xox[abeoprs]|xapp|xwfp)-",
    "GOOGLE_API_KEY": r"^AIza[A-Za-z0-9_-]{35}$",
    "API_TOKEN": r"^(?:[sr]k_(?:live|test)_|sk-|glpat-|npm_|hf_|pypi-|dckr_pat_)[A-Za-z0-9_-]{20,}$",
    "CREDENTIAL": rf"^{_CREDENTIAL}[\"']?[ \t]*[:=]",
}
"""How a secret's candidate is told from the others: its beginning is its mark, so no further check is needed."""

ANY_SECRET = "|".join(f"(?:{pattern})" for pattern in SECRET_KINDS.values())
"""Any of them at once."""

CODE_KINDS = {
    "IBAN_CODE": r"^[A-Z]{2}[0-9]{2}[0-9A-Z]{8,30}$",
    "SG_NRIC_FIN": r"^[STFGM][0-9]{7}[A-Z]$",
    "IN_PAN": r"^[A-Z]{5}[0-9]{4}[A-Z]$",
    "UK_NINO": r"^[A-Z]{2}[0-9]{6}[A-D]$",
    "IT_FISCAL_CODE": r"^[A-Z]{6}[0-9]{2}[ABCDEHLMPRST][0-7][0-9][A-Z][0-9]{3}[A-Z]$",
    "FI_HETU": r"^[0-9]{6}[A-FU-Y]?[0-9]{3}[0-9A-Y]$",
    "IE_PPSN": r"^[0-9]{7}[A-W][A-IW]?$",
    "ES_NIF": r"^(?:[0-9]{7,8}|[XYZ][0-9]{7})[A-Z]$",
    "FR_NIR": r"^[0-9]{5}2[AB][0-9]{8}$",
    "DRIVER_LICENSE": r"^(?:[A-Z]{5}|[A-Z]{4}9|[A-Z]{3}99|[A-Z]{2}999|[A-Z]9999)[0-9]{6}[A-Z][A-Z9][0-9][A-Z]{2}$",
}
"""Codes of letters and digits, after spaces and dashes are taken out and letters made capitals."""

MAC_ADDRESS = (
    r"^[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}$|^[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5}$"
    r"|^[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2}$"
)
IPV6 = r"^[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:]*$"
CRYPTO = r"^(?:0x[0-9A-Fa-f]{40}|bc1[02-9ac-hj-np-z]{25,60}|[13][1-9A-HJ-NP-Za-km-z]{25,34})$"
URL_CREDENTIALS = r"^[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@"
DATE = (
    r"^(?:(?:18|19|20)[0-9]{2}[-/.][0-9]{1,2}[-/.][0-9]{1,2}(?:$|[T ])"
    r"|[0-9]{1,2}[-/.][0-9]{1,2}[-/.](?:19|20)[0-9]{2}$)"
)
"""A date to the day; a month or a year alone is what generalising leaves."""
COORDINATE_PAIR = r"^-?[0-9]{1,3}\.[0-9]{4,}\s*,\s*-?[0-9]{1,3}\.[0-9]{4,}$"

WHATEVER_DIGITS = frozenset((
    AT_SIGN, WEB_ADDRESS, ANY_SECRET, *SECRET_KINDS.values(), EXTENSION, URL_CREDENTIALS, MAC_ADDRESS, IPV6,
    COORDINATE_PAIR,
))  # fmt: skip
"""What matches a candidate with other digits too, unless `DECIDED_BY_DIGITS` was found in its cell."""

NO_ADDRESS = "|".join((
    rf"^(?:{'|'.join((*_SECRETS, _URL))})", ANY_SECRET, WEB_ADDRESS, PERHAPS_IBAN, "^[^A-Za-z]*$",
))  # fmt: skip
"""What makes an e-mail address something else: what comes before it in `ALL` and in `classify`, an IBAN in it, and that
no ASCII letter is."""

VERSION = r"^0\.|^[0-9]\.[0-9]{1,2}[^0-9]|[0-9]\.[0-9]\."
"""Digits in groups that are numbers of a version: one digit alone between dots, a zero or one before a short group."""

PLAIN = (
    r"^(?:-?[0-9]+\.[0-9]+|-?[0-9]{1,8}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    r"|(?:18|19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?Z?)?"
    r"|tok_[a-z2-7]{26})$"
)
"""Cells that no entity fills: fractions, short numbers, UUIDs, dates and the tokens of treated copies, of which no
alternative of `ALL` matches any part. A column of nothing else is not searched."""
