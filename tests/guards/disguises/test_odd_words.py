"""One disguised word among plain ones is read, and words that are only rare stay."""

import base64
import codecs

import pytest

from guardreasoner.guards.disguises.odd_words import odd_words
from guardreasoner.guards.disguises.undoing import forms

ASKED = "Where can I bake a large {} at home?"
CODES = dict(zip("potao", (".--.", "---", "-", ".-", "---"), strict=True))
POTATO = {
    "leet": "p0t470",
    "leet of signs": "p()t@to",
    "leet turned round": "07at0p",
    "spaced": "p o t a t o",
    "dotted": "p.o.t.a.t.o",
    "masked": "p*tat*",
    "a dot for a letter": "p.tato",
    "a hyphen for a letter": "p-tato",
    "a hyphen inside": "pot-ato",
    "a digit inside": "pota7to",
    "a bracket inside": "po[t]ato",
    "a blank inside": "pota to",
    "an emoji inside": "pot😀ato",
    "a comment inside": "pot<!-- so -->ato",
    "doubled": "ppoottaattoo",
    "drawn out": "potaaaaato",
    "reversed": "otatop",
    "rot13": codecs.encode("potato", "rot13"),
    "shifted": "srwdwr",
    "mirrored": "klgzgl",
    "pig Latin": "otatopay",
    "a syllable before vowels": "pobotobatobo",
    "base64": base64.b64encode(b"potato").decode(),
    "base64 of leet": base64.b64encode(b"p0t4t0").decode(),
    "base32": base64.b32encode(b"potato").decode(),
    "hex": b"potato".hex(),
    "hex of a number": "0x" + b"potato".hex(),
    "spaced hex": b"potato".hex(" "),
    "binary": " ".join(f"{b:08b}" for b in b"potato"),
    "decimal": " ".join(map(str, b"potato")),
    "numbered": "-".join(str(ord(c) - 96) for c in "potato"),
    "keys": "7 666 8 2 8 666",
    "Morse": " ".join(CODES[c] for c in "potato"),
    "Morse in words": ", ".join(" ".join({".": "dit", "-": "dah"}[sign] for sign in CODES[c]) for c in "potato"),
    "spelling words": "papa oscar tango alfa tango oscar",
    "an escape": "pot\\u0061to",
    "a percent sign": "pot%61to",
    "an entity": "pot&#97;to",
    "Cyrillic": "роtаtо",
    "upside down": "oʇɐʇod",
    "strings added": '"pot" + "ato"',
    "letters in quotes": '"p", "o", "t", "a", "t", "o"',
    "letters swapped": "ptoato",
    "a letter put in": "potxato",
    "another letter": "potxto",
}


@pytest.mark.parametrize("way", POTATO)
def test_one_disguised_word_is_read(way):
    text = ASKED.format(POTATO[way])
    assert ASKED.format("potato") in [" ".join(f.text.split()) for f in forms(text)]
    assert any(f.undone for f in forms(text))


@pytest.mark.parametrize("word", ["gun", "tea"])
def test_words_of_three_letters_are_read_where_they_are_spaced(word):
    text = f"Where is the {'-'.join(word)} now?"
    assert any(word in f.text for f in forms(text))


def test_what_was_undone_has_a_name():
    assert [f.undone for f in forms(ASKED.format("p0tat0"))] == [(), ("odd words",)]


@pytest.mark.parametrize(
    "text",
    [
        "Is it B2B or B2C, and is 3D or 4K on an i7 with 16GB enough?",
        "Take vitamin B12 and 50mg of it at 8am, on the 1st and the 4th, for 2wks.",
        "Water is H2O and salt is NaCl; CO2 and C6H12O6 are others.",
        "My mp3 and mp4 files, my PS5, the covid19 test and a 0day in log4j are here.",
        "Log in as user42 with the password hunter2 at 10.0.0.1:8080 or me@example.com.",
        "see https://example.com/p0t4t0 and ~/b00k/t3st.py, or run main.py --b00k",
        "He said sooo many things, hmm, and then ahh, brrr and zzz.",
        "Dont they know its theirs? Theyre sure it isnt, and they know.",
        "Send an e-mail with the t-shirt size of my mother-in-law, and/or a follow-up.",
        "Call 555-0134, or 12-24-2023, on the 2-3-4-5 line with score 3-1.",
        "Marek, Jannis and Siobhan met HIPAA and NASA people in Feuerwehr.",
        "const x = foo_bar.baz(a[i], b); // TODO: k8s, s3, utf8, sha256, i18n",
        "Ich möchte bitte mit meinen Kindern am Sonntag einen Kuchen ohne Eier backen.",
        "The order id is 4f9a1c3e77 and the part is AX-4471-B2.",
    ],
)
def test_rare_words_numbers_names_and_code_stay(text):
    assert odd_words(text) == text
