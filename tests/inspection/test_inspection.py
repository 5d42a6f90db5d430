"""Data inspection: each planted fault and duplicate is found and named; the page shows all data as text."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from balanced_thinking.cli import main
from balanced_thinking.data.world import load
from balanced_thinking.inspection import advise_changes, describe_inspection, inspect_data, write_page
from balanced_thinking.inspection.duplicates import PictureHash, hash_picture
from balanced_thinking.inspection.page import SHOWN_SAMPLES
from balanced_thinking.inspection.summary import count_cut_answers
from balanced_thinking.models.load import load_processor


def drawing(seed: int) -> Image.Image:
    """A picture of many parts, so that no other picture looks like it."""
    board = next(load(n=1, seed=seed)).images[0].resize((168, 168))
    ImageDraw.Draw(board).line([(0, seed * 9), (168, 168 - seed * 7)], fill="white", width=6)
    return board


def row(folder: Path, seed: int, **changes: Any) -> dict[str, Any]:
    name = f"{seed}.png"
    drawing(seed).save(folder / name)
    found = {"id": str(seed), "question": f"What is in picture {seed}?", "image": name}
    return found | {"think": "I look at it. " * 20, "answer": "B", "choices": ["dog", "cat"]} | changes


def write(folder: Path, rows: list[dict[str, Any]], name: str = "mine.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def benchmark(folder: Path, pictures: list[Image.Image]) -> str:
    """ScienceQA's layout with these pictures as its test split."""
    item = {"question": "Which ?", "choices": ["dog", "cat"], "answer": 1, "image": "image.png"}
    for k, picture in enumerate(pictures):
        place = folder / "images" / "test" / str(k)
        place.mkdir(parents=True)
        picture.save(place / "image.png")
    (folder / "problems.json").write_text(json.dumps({str(k): item for k in range(len(pictures))}))
    (folder / "pid_splits.json").write_text(json.dumps({"test": [str(k) for k in range(len(pictures))]}))
    return f"scienceqa:{folder}"


def compressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=60)
    return Image.open(buffer)


def test_every_planted_fault_is_found_and_named(tmp_path: Path) -> None:
    rows = [row(tmp_path, seed) for seed in range(20)]
    rows[1]["image"] = "nowhere.png"
    cut = tmp_path / "2.png"
    cut.write_bytes(cut.read_bytes()[:200])
    rows[3]["answer"] = ""
    rows[4] = {"id": "4", "image": "4.png", "conversations": []}
    both = "<think>a</think><answer>A</answer><answer>B</answer>"
    rows[5] = {"id": "5", "image": "5.png", "prompt": "What ?", "completion": both}
    rows[6]["answer"] = "C"
    rows[7]["id"] = "0"
    rows[8] = rows[8] | {"image": rows[0]["image"], "question": rows[0]["question"]}
    del rows[9]["think"]
    path = write(tmp_path, rows)
    against = benchmark(
        tmp_path / "tests", [drawing(10), drawing(11).resize((300, 300)), compressed(drawing(12)), drawing(40)]
    )
    found = inspect_data(path, against=[against])
    problems = {bad.id: bad.problems for bad in found.bad_rows}
    assert problems["1"] == ("missing_image",)
    assert problems["2"] == ("broken_image",)
    assert problems["3"] == ("no_answer",)
    assert problems["4"] == ("unknown_schema",)
    assert problems["5"] == ("multiple_answers",)
    assert problems["6"] == ("answer_not_in_choices",)
    assert problems["0"] == ("duplicate_id",)
    assert len(found.bad_rows) == 7
    assert [(one.id, one.other) for one in found.repeats] == [("8", "0")]
    assert [(leak.id, leak.other, leak.kind) for leak in found.leaks] == [
        ("10", "0", "picture"),
        ("11", "1", "near_picture"),  # larger
        ("12", "2", "near_picture"),  # compressed
    ]
    text = describe_inspection(found)
    for part in (
        "13 examples, 7 bad rows",
        "10: the same picture as 0 of scienceqa:",
        "8: the same question as 0",
    ):
        assert part in text
    changes = "\n".join(advise_changes(found))
    for part in (
        "remove the samples that are in a test split (3)",
        "fix the bad rows (missing_image 1",
        "reasoning is missing in 1 of 13 samples",
    ):
        assert part in changes


def test_what_is_found_can_be_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(tmp_path, seed) for seed in range(8)]
    rows[1]["answer"] = "\ud800"
    rows[2] |= {"image": rows[0]["image"], "question": rows[0]["question"]}
    rows[3]["id"] = "0"
    path, table, clean = write(tmp_path, rows), tmp_path / "found" / "rows.csv", tmp_path / "clean.jsonl"
    against = benchmark(tmp_path / "tests", [compressed(drawing(5))])
    assert main(["inspect", path, "--against", against, "--rows", str(table)]) == 0
    assert capsys.readouterr().out.rstrip().endswith(str(table))
    lines = [line.split(",")[:3] for line in table.read_text().splitlines()]
    assert lines == [
        ["row", "id", "problem"],
        ["2", "1", "answer_not_in_choices lone_surrogate"],
        ["4", "0", "duplicate_id"],
        ["6", "5", "leak_near_picture"],
        ["3", "2", "repeated"],
    ]
    assert main(["convert", path, "--without", str(table), "--on-bad-row", "drop", "--out", str(clean)]) == 0
    kept = [json.loads(line)["id"] for line in clean.read_text().splitlines()]
    assert kept == ["0", "4", "6", "7"]  # the good row of id 0 stays
    again = inspect_data(str(clean), against=[against])
    assert (again.leaks, again.repeats, again.bad_rows) == ([], [], ())


def test_a_table_with_other_columns_removes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("name,age\n")
    path = write(tmp_path, [row(tmp_path, 1)])
    words = ["convert", path, "--without", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "out.jsonl")]
    assert main(words) == 1
    assert "has the columns name, age; expected id and problem" in capsys.readouterr().err


def mathvista(folder: Path, picture: Image.Image) -> str:
    """MathVista's layout, answers withheld as in its larger split."""
    (folder / "images").mkdir(parents=True)
    picture.save(folder / "images" / "1.png")
    item = {"pid": "1", "question": "How many?", "image": "images/1.png", "answer": ""}
    (folder / "testmini.json").write_text(json.dumps({"1": item}))
    return f"mathvista:{folder}"


def test_test_items_without_an_answer_are_compared(tmp_path: Path) -> None:
    path = write(tmp_path, [row(tmp_path, seed) for seed in (3, 4)])
    found = inspect_data(path, against=[place := mathvista(tmp_path / "tests", drawing(4))])
    assert [leak.id for leak in found.leaks] == ["4"]
    assert f"compared with {place} (1 test items)" in describe_inspection(found)


def test_a_benchmark_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    place = mathvista(tmp_path / "tests", drawing(4))
    (tmp_path / "tests" / "testmini.json").write_text('{"1": {"pid": "1"}}')
    with pytest.raises(ValueError, match="none of the 1 rows of its test split can be read"):
        inspect_data(write(tmp_path, [row(tmp_path, 3)]), against=[place])


def test_questions_of_a_test_split_are_found_with_and_without_pictures(tmp_path: Path) -> None:
    rows = [row(tmp_path, seed) for seed in range(4)]
    rows[0] |= {"question": "WHICH?\n(A) dog\n(B) cat"}  # about another picture
    rows[1] |= {"question": "Which ?\nA. dog\nB. cat", "image": None}
    rows[2] |= {"question": "Where is it?\nA. dog\nB. cat", "image": None}
    place = benchmark(tmp_path / "tests", [drawing(9)])
    problems = json.loads((tmp_path / "tests" / "problems.json").read_text())
    text_only = {"question": "Where is it?", "choices": ["dog", "cat"], "answer": 0, "image": None}
    (tmp_path / "tests" / "problems.json").write_text(json.dumps(problems | {"t": text_only}))
    (tmp_path / "tests" / "pid_splits.json").write_text(json.dumps({"test": ["0", "t"]}))
    found = inspect_data(write(tmp_path, rows), against=[place])
    assert [(leak.id, leak.other) for leak in found.leaks] == [("1", "0"), ("2", "t")]
    assert [(one.id, one.other) for one in found.shared_questions] == [("0", "0")]
    assert any("question alone may reveal the answer" in line for line in advise_changes(found))


def test_formats_of_completions_are_reported(tmp_path: Path) -> None:
    completion = "<think>\\nI look.\\n</think>\\n\\nB"
    rows = [{"id": str(k), "prompt": "What ?", "completion": completion} for k in range(3)]
    rows.append({"id": "4", "prompt": "What ?", "completion": r"I look. \boxed{B}"})
    found = inspect_data(write(tmp_path, rows))
    assert "completions written as: deepseek-r1 3, boxed 1" in describe_inspection(found)
    (line,) = [line for line in advise_changes(found) if "written as" in line]
    assert line.endswith("all of them as think-answer: reasoning_format: deepseek-r1 keeps the most frequent one")
    same = inspect_data(write(tmp_path, rows[:3]), format="deepseek-r1")
    assert not any("written as" in line for line in advise_changes(same))


def test_sums_of_other_numbers_are_not_repeats(tmp_path: Path) -> None:
    sums = [
        ("12 + 5?", "17"),
        ("12 - 5?", "7"),
        ("1.5 + 2?", "a"),
        ("1,5 + 2?", "a"),
        ("3 < 5?", "true"),
        ("3 < 5?", "yes"),
        ("3 > 5?", "no"),
        ("12  +  5?", "17"),
    ]
    rows = [{"question": question, "answer": answer, "think": "I reckon."} for question, answer in sums]
    (one,) = inspect_data(write(tmp_path, rows)).repeats
    assert (one.id, one.other) == ("mine-000008", "mine-000001")


def test_a_benchmark_without_its_pictures_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, [row(tmp_path, seed) for seed in (3, 4)])
    place = benchmark(tmp_path / "tests", [drawing(3), drawing(9)])
    first, second = (tmp_path / "tests" / "images" / "test" / str(k) / "image.png" for k in range(2))
    second.unlink()
    assert "2 test items, 1 of their pictures are missing" in describe_inspection(inspect_data(path, against=[place]))
    first.unlink()
    with pytest.raises(ValueError, match="all 2 test pictures are missing"):
        inspect_data(path, against=[place])


def test_a_table_of_other_data_removes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, [row(tmp_path, 1)])
    table = tmp_path / "rows.csv"
    table.write_text("row,id,problem,detail\n1,elsewhere,repeated,\n2,unsaid,,\n")
    assert main(["convert", path, "--without", str(table), "--out", str(tmp_path / "out.jsonl")]) == 1
    assert "2 of the 2 samples to leave out (elsewhere is one) are not in this data" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_table_of_an_edited_file_removes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids are numbers of rows here, and a row before the repeated one has been removed."""
    rows = [{"question": f"What is {n} ?", "think": "so .", "answer": str(n)} for n in (0, 1, 1, 2)]
    path, table, out = write(tmp_path, rows), tmp_path / "rows.csv", tmp_path / "out.jsonl"
    assert main(["inspect", path, "--rows", str(table)]) == 0
    assert main(["convert", path, "--without", str(table), "--out", str(out)]) == 0
    assert [json.loads(line)["answer"] for line in out.read_text().splitlines()] == ["0", "1", "2"]
    words = ["convert", path, "--without", str(table), "--out", str(out), "--overwrite"]
    for option in (["--data_options.list_choices", "true"], ["--data_options.think", "drop"]):
        assert main([*words, *option]) == 0
    write(tmp_path, rows[1:])
    assert main(["convert", path, "--without", str(table), "--out", str(out), "--overwrite"]) == 1
    assert "is not the one that" in capsys.readouterr().err
    assert len(out.read_text().splitlines()) == 3  # as it was


@pytest.mark.parametrize(("one", "other"), [("green", "yellow"), ("red", "green"), ("blue", "red")])
def test_drawings_in_other_colors_are_other_pictures(one: str, other: str) -> None:
    def draw(color: str, side: int) -> PictureHash:
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((12, 12, 50, 50), fill=color)
        found = hash_picture(picture.resize((side, side)))
        assert found is not None
        return found

    assert draw(one, 64).is_near(draw(one, 96))
    assert not draw(one, 64).is_near(draw(other, 64))


def test_a_copied_file_is_the_same_picture(tmp_path: Path) -> None:
    path = write(tmp_path, [row(tmp_path, seed) for seed in (3, 4)])
    place = benchmark(tmp_path / "tests", [drawing(3)])
    (tmp_path / "tests" / "images" / "test" / "0" / "image.png").write_bytes((tmp_path / "3.png").read_bytes())
    assert [(leak.id, leak.kind) for leak in inspect_data(path, against=[place]).leaks] == [("3", "picture")]


def test_no_real_set_leaks_into_another(real_data: Path) -> None:
    """Abstract drawings on a plain ground have difference hashes in common; they are not the same picture."""
    against = [f"{name}:{real_data / name}" for name in ("iconqa", "scienceqa")]
    options = {"families": ["grid_number", "venn", "circle_size_number"]}
    assert not inspect_data(str(real_data / "puzzlevqa"), options=options, against=against).leaks


def test_lengths_with_pictures_are_those_of_the_batch(tmp_path: Path) -> None:
    from balanced_thinking.batch.collator import ScaleCollator
    from balanced_thinking.data.load import load_data
    from balanced_thinking.data.rows import to_dataset

    processor = load_processor("world-base")
    path = write(tmp_path, [row(tmp_path, 1), row(tmp_path, 2, think="I see. " * 150)])
    found = inspect_data(path, processor=processor)
    rows = to_dataset(load_data(path).examples)
    for sample, one in zip(found.samples, rows, strict=True):
        batch = ScaleCollator(processor)([one])
        assert sample.total == batch["input_ids"].numel()
        assert sample.think + sample.answer <= int((batch["labels"] != -100).sum())
    assert count_cut_answers(found) == [(512, 1)]
    assert any(line.startswith("max_length: 1024 cuts nothing") for line in advise_changes(found))


def test_the_page_shows_the_data_as_text_and_runs_nothing(tmp_path: Path) -> None:
    rows = [row(tmp_path, seed) for seed in range(3)]
    rows[0] |= {"question": "<script>alert(1)</script> & co", "think": "</p><img src=x onerror=alert(2)>"}
    rows[0]["question"] += "\nA. dog\nB. cat"
    rows[1]["answer"] = "<b>C</b>"
    html = write_page(inspect_data(write(tmp_path, rows)), tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in html
    assert '<p class="question">&lt;script&gt;' in html
    assert "\nB. cat</p>" in html
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "&lt;b&gt;C&lt;/b&gt;" in html
    assert "default-src &#39;none&#39;" in html
    assert not re.search(r"""(?:src|href)=["'](?!data:image/png;base64,|#)""", html)
    assert re.findall(r'<span class="(\w+)">', html).count("think") >= 2
    assert html.count('alt="picture 1 of sample') == 2


def test_inspect_writes_its_page_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, page = write(tmp_path, [row(tmp_path, 1)]), tmp_path / "out" / "page.html"
    assert main(["inspect", path, "--model", "world-base", "--html", str(page)]) == 0
    assert capsys.readouterr().out.rstrip().endswith(str(page))
    assert page.is_file()


def test_empty_data_is_not_called_fine(tmp_path: Path) -> None:
    assert advise_changes(inspect_data(write(tmp_path, []))) == ["there is no row: check the file and the split"]
    (line,) = advise_changes(inspect_data(write(tmp_path, [{"question": "What ?", "answer": ""}])))
    assert line == "fix the bad rows (no_answer 1): there is no good one"


def test_a_row_with_two_faults_has_the_names_that_training_gives_it(tmp_path: Path) -> None:
    good = {"question": "?", "think": "I look.", "answer": "B"}
    missing, tagged = {"image": "none.png"}, {"think": "It ends </think> here."}
    other = {"choices": ["a", "b"], "answer": "C"}
    rows = [good, good | missing | {"think": None}, good | missing | tagged, good | tagged | other]
    path = write(tmp_path, rows)
    processor = load_processor("tiny:qwen2")
    found = [bad.problems for bad in inspect_data(path, processor=processor).bad_rows]
    twice = [("missing_image", "no_think"), ("missing_image", "tag_in_text"), ("answer_not_in_choices", "tag_in_text")]
    assert found == twice
    # Without any reasoning they are rows for GRPO, which needs none.
    (bad,) = inspect_data(write(tmp_path, [good | {"think": None}, rows[1]]), processor=processor).bad_rows
    assert bad.problems == ("missing_image",)


def test_rows_for_grpo_get_no_advice_on_the_max_length_that_it_does_not_have(tmp_path: Path) -> None:
    rows = [{"question": "Which one? " * 500, "answer": "B"}]
    found = inspect_data(write(tmp_path, rows), processor=load_processor("tiny:qwen2"))
    assert len(found.samples) == 1
    assert "max_length" not in describe_inspection(found)


def test_a_long_answer_is_shortened(tmp_path: Path) -> None:
    rows = [{"question": "?", "think": "I look.", "answer": "word " * 100}]
    assert max(map(len, describe_inspection(inspect_data(write(tmp_path, rows))).splitlines())) < 200


def test_the_commands_of_an_advice_name_the_same_data(tmp_path: Path) -> None:
    rows = [{"question": "?", "think": "I look.", "answer": "B", "split": "val"}] * 2
    found = inspect_data([write(tmp_path, rows, "my rows.jsonl"), write(tmp_path, rows)], split="val")
    assert f"balanced convert '{tmp_path}/my rows.jsonl' {tmp_path}/mine.jsonl --split val --without" in str(
        advise_changes(found)
    )


def test_words_of_a_script_without_spaces_are_counted(tmp_path: Path) -> None:
    rows = [{"question": "?", "think": "它有鬃毛。" * 20, "answer": "马"}]
    (sample,) = inspect_data(write(tmp_path, rows)).samples
    assert (sample.think, sample.answer) == (20 * 5 + 2, 1 + 3)  # with tags, and the end of the turn


def test_reasoning_under_an_unread_name_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path, [{"question": "What ?", "answer": "B", "hints": "I look.", "scene": "a dog|-"}])
    (line,) = advise_changes(inspect_data(path))
    assert "(it is read under think or reasoning; not under hints)" in line
    path = write(tmp_path, [{"question": "What ?", "answer": "B", "scene": "A dog runs.", "table": "a b | c"}])
    (line,) = advise_changes(inspect_data(path))
    assert "not under scene, table)" in line


def test_the_page_shows_samples_from_the_complete_data(tmp_path: Path) -> None:
    rows = [{"id": f"<{k}>", "question": "What ?", "answer": str(k)} for k in range(SHOWN_SAMPLES * 2 - 1)]
    html = write_page(inspect_data(write(tmp_path, rows)), tmp_path / "page.html").read_text()
    assert html.count("<article") == SHOWN_SAMPLES
    assert "&lt;0&gt;" in html
    assert f"&lt;{len(rows) - 2}&gt;" in html  # of two for each place, the first
    assert "There is no reasoning to measure." in html


def test_inspect_names_both_of_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, table, page = write(tmp_path, [row(tmp_path, 1)]), tmp_path / "rows.csv", tmp_path / "page.html"
    assert main(["inspect", path, "--rows", str(table), "--html", str(page)]) == 0
    assert capsys.readouterr().out.endswith(f"\n{table}\n\n{page}\n")


def test_answers_in_prose_are_reported(tmp_path: Path) -> None:
    rows = [{"prompt": "How many?", "completion": text} for text in ("I count. So the answer is 3.", "I give up.")]
    changes = advise_changes(inspect_data(path := write(tmp_path, rows)))
    assert "--data_options.format prose reads the bad rows that end in a sentence with the answer (1)" in changes
    assert len(inspect_data(path, options={"format": "prose"}).samples) == 1


def test_answers_without_reasoning_are_reported(tmp_path: Path) -> None:
    said = ("red", "The picture is red.", "<thought>Hm.</thought>red", "<think>Hm.")  # the last two have tags
    rows = [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]} for text in said]
    changes = advise_changes(inspect_data(path := write(tmp_path, rows)))
    advice = "--data_options.format direct reads completions without reasoning as answers (2 have no tags)"
    assert any(line.startswith(advice) for line in changes)
    assert [s.example.answer for s in inspect_data(path, options={"format": "direct"}).samples[:2]] == [*said[:2]]


def picture_row(folder: Path, name: str, side: int, count: int = 1) -> dict[str, Any]:
    """A sample with `count` pictures of this side."""
    Image.effect_noise((side, side), 60).save(folder / f"{name}.png")
    return {"question": f"Which {name}?", "images": [f"{name}.png"] * count, "think": "I look.", "answer": "a dog"}


def processor_of(folder: Path, max_pixels: int) -> Any:
    from balanced_thinking.models.tiny import build_tiny

    for part in build_tiny("qwen2_5_vl"):
        part.save_pretrained(folder / "model")
    return load_processor(str(folder / "model"), {"max_pixels": max_pixels})


@pytest.mark.parametrize(
    ("side", "count", "pixels"),
    [
        (2240, 1, 1003520),  # 6,400 tokens
        (1400, 2, 1003520),  # 5,000 by two pictures
        (1400, 8, 28 * 28 * 512),  # 20,000 by eight
        pytest.param(1400, 30, 28 * 28 * 128, marks=pytest.mark.slow),
        (560, 1, None),  # 400: short enough
        pytest.param(56, 900, None, marks=pytest.mark.slow),  # pictures that are as small as they can be
    ],
)
def test_a_picture_size_that_fits_is_advised_before_a_length(
    tmp_path: Path, side: int, count: int, pixels: int | None
) -> None:
    processor = processor_of(tmp_path, 28 * 28 * 16384)
    rows = [picture_row(tmp_path, "large", side, count), picture_row(tmp_path, "small", 84)]
    found = inspect_data(write(tmp_path, rows), processor=processor)
    advice = advise_changes(found)
    said = [line for line in advice if "image_options" in line]
    assert len(said) == (pixels is not None)
    if pixels is None:
        return
    assert f"--image_options.max_pixels {pixels} " in said[0]
    assert advice.index(said[0]) < next(k for k, line in enumerate(advice) if line.startswith("max_length"))
    smaller = load_processor(str(tmp_path / "model"), {"max_pixels": pixels})
    fitting = inspect_data(str(tmp_path / "mine.jsonl"), processor=smaller)
    assert max(fitting.totals) <= 4096
    assert len(fitting.samples) == 2
    assert not any("image_options" in line for line in advise_changes(fitting))


def test_samples_that_are_long_by_their_text_get_no_advice_on_pictures(tmp_path: Path) -> None:
    long = picture_row(tmp_path, "a", 560) | {"think": "I see a dog . " * 2000}
    found = inspect_data(write(tmp_path, [long]), processor=processor_of(tmp_path, 28 * 28 * 16384))
    assert max(found.totals) > 4096
    assert not any("image_options" in line for line in advise_changes(found))


def test_pictures_of_a_single_color_are_named(tmp_path: Path) -> None:
    rows = [picture_row(tmp_path, "noise", 60), *(picture_row(tmp_path, f"plain{k}", 60) for k in range(4))]
    text = Image.new("RGBA", (60, 60), (255, 255, 255, 0))
    text.paste((255, 255, 255, 255), (10, 10, 30, 30))  # white on transparent
    for k, plain in enumerate((text, Image.new("L", (9, 9), 7), Image.new("RGBA", (9, 9)), Image.new("1", (9, 9)))):
        plain.save(tmp_path / f"plain{k}.png")
    found = inspect_data(write(tmp_path, rows))
    (line,) = [line for line in advise_changes(found) if "single color" in line]
    assert line.startswith("4 pictures have a single color (samples ")
    assert len(found.plain_pictures) == 4
