"""Parse a completion, name its problems, and give every token its segment."""

from balanced_thinking import load_model, parse, render
from balanced_thinking.segments import ANSWER, token_segments

text = "<think>Four legs and fur.</think>\n<answer>B</answer>"
parsed = parse(text)
print("think: ", parsed.think)
print("answer:", parsed.answer)

# The parser never raises. What is wrong has a name.
for broken in ("no tags at all", "<think>Maybe <answer>A</answer>?", "<think>a</think><answer>A</answer> or B?"):
    print(f"{broken!r}: {', '.join(parse(broken).problems)}")

# `auto` recognises every built-in format.
boxed = parse(r"Two reds and one blue, so \boxed{3}.", format="auto")
print("boxed: ", boxed.answer, "in the format", boxed.format)

# `render` is the way back: it writes the tags of any format.
print("llava-cot:", render("Four legs.", "B", "llava-cot").replace("\n", " "))

# One tokenization of the complete text; each token belongs to thinking or to the answer. Tags belong to their segment.
tokenizer = load_model("tiny:qwen2").processor
encoded = tokenizer(text, return_offsets_mapping=True)
segments = token_segments(parsed, encoded["offset_mapping"])
answer = [i for i, segment in zip(encoded["input_ids"], segments, strict=True) if segment == ANSWER]
print(f"{len(segments)} tokens, {len(answer)} of them the answer's: {tokenizer.decode(answer).strip()!r}")
