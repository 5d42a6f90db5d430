"""The names of a row's values that are read. Every other name goes to `meta`."""

from __future__ import annotations

import re

TURN_LISTS = ("messages", "conversations")
ALWAYS_READ = {"id", "choices", "image", "images", "split"}
# The names of ours. Those that a row's schema does not read are part of `meta`.
CLAIMED = {"id", "question", "think", "reasoning", "answer", "choices", "image", "images", "meta", "split"}
CLAIMED |= {"prompt", "completion", *TURN_LISTS}

# Reasoning beside the answer, in the order in which a row's names are tried.
THINK_KEYS = (
    "think",
    "reasoning",
    "reasoning_content",
    "thinking",
    "thought",
    "thoughts",
    "rationale",
    "cot",
    "chain_of_thought",
    "reasoning_text",
    "thinking_content",
)
# Beside a turn's `content`. Chat templates read the first; from `OWN_TURN_KEYS` on they are names of columns.
_TURN_KEYS = ("reasoning_content", "reasoning", "thinking", "thought", "think")
TURN_THINK_KEYS, OWN_TURN_KEYS = tuple(dict.fromkeys((*_TURN_KEYS, *THINK_KEYS))), len(_TURN_KEYS)
DETAIL_KEY = "reasoning_details"  # OpenRouter's parts of the reasoning, which may be encrypted
ANSWER_KEYS = ("answer", "answers")
ALTERNATIVE_KEYS = ("alternatives", "answers")
CHOICE_KEYS = ("choices", "options")
SYSTEM_KEYS = ("system", "system_prompt")
LIST_KEYS = ("choices", "options", "answers", "alternatives", "image", "images", "file_names")  # of several values
MEDIA_KEYS = ("video", "videos", "audio", "audios")
# Part of `meta` unless their values are used.
OPTIONAL = {*THINK_KEYS, *ALTERNATIVE_KEYS, *CHOICE_KEYS, *SYSTEM_KEYS, "history"}
NUMBERED_IMAGE = re.compile(r"(?:image|img|picture)[_ ]?(\d{1,2})", re.IGNORECASE)
