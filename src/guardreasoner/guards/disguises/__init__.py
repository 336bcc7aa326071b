"""What hides words and is undone before judging: one file per family of disguises.

To undo one more, write a function in the file of its family, and give it a line in a table at the end of that file:

    EXACT        what stands for nothing else (an entity, signs between letters): the text is replaced
    GUESSES      what may be meant (a word in leet): another form of the text, judged beside it
    AS_WRITTEN   guesses at the text as written, where exact undoings changed it
    RUNS, CODES  of `byte_encodings` (base64) and `letter_codes` (Morse): what a run of signs looks like, and its reader
    CIPHERS      of `ciphers` (rot13): the names of what `ciphers` tries

A function returns the text unchanged where it finds nothing. It never raises, and is linear in the length of the text.
A new family is a file with such tables, and its name in `undoing.FAMILIES`. `undoing.forms` makes the forms in which a
text is judged.
"""
