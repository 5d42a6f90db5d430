"""Write a small data set with pictures, load it, and see which rows are bad."""

import json
import tempfile
from pathlib import Path

from PIL import Image

from balanced_thinking import load_data

folder = Path(tempfile.mkdtemp())
for name, color in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
    Image.new("RGB", (56, 56), color).save(folder / f"{name}.png")
(folder / "broken.png").write_bytes(b"this is no picture")

question = "Which color is it?\nA. red\nB. blue"
rows = [
    {"image": "red.png", "question": question, "think": "All of it is red.", "answer": "A", "choices": ["red", "blue"]},
    # A completion with tags is as good as two columns; a list of pictures as good as one.
    {"images": ["blue.png"], "prompt": question, "completion": "<think>Blue all over.</think><answer>B</answer>"},
    {"image": "broken.png", "question": question, "think": "Nothing to see.", "answer": "A"},
    {"image": "red.png", "question": question, "think": "It is red."},
    {"image": "missing.png", "question": question, "think": "It is red.", "answer": "A"},
]
file = folder / "my.jsonl"
file.write_text("".join(json.dumps(row) + "\n" for row in rows))

# Without `on_bad_row="drop"` bad rows are an error that lists all of them.
loaded = load_data(str(file), on_bad_row="drop", verify_images=True)
for example in loaded.examples:
    print(f"{example.id}: {example.answer} because {example.think!r}, {len(example.images)} picture")
print(f"{loaded.dropped} bad rows:")
print(loaded.table())
