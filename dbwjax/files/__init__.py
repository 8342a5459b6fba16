"""The only opener and the only writer of files.

Reading opens regular files alone (never a pipe or a device, which could block or never end), and no more of one than it
is told; what its content may become is bounded, too. Links on the way to a run folder, to data or to an input are
followed, because clusters need them; `within` follows none below a folder. Writing is whole or not at all, and never
through a link.

What cannot be read or written is a `ValueError` of one line: file, reason, remedy.
"""

from dbwjax.files.content import SAMPLE as SAMPLE
from dbwjax.files.content import Content as Content
from dbwjax.files.content import content_of as content_of
from dbwjax.files.reading import DATA as DATA
from dbwjax.files.reading import TEXT as TEXT
from dbwjax.files.reading import arrays_of as arrays_of
from dbwjax.files.reading import checksum as checksum
from dbwjax.files.reading import json_of as json_of
from dbwjax.files.reading import read as read
from dbwjax.files.reading import read_arrays as read_arrays
from dbwjax.files.reading import read_json as read_json
from dbwjax.files.reading import read_text as read_text
from dbwjax.files.reading import refused as refused
from dbwjax.files.writing import as_file_name as as_file_name
from dbwjax.files.writing import delete as delete
from dbwjax.files.writing import draft_of as draft_of
from dbwjax.files.writing import hold as hold
from dbwjax.files.writing import is_stray as is_stray
from dbwjax.files.writing import make_folder as make_folder
from dbwjax.files.writing import replace_file as replace_file
from dbwjax.files.writing import require_folder as require_folder
from dbwjax.files.writing import write_json as write_json
from dbwjax.files.writing import write_json_once as write_json_once
