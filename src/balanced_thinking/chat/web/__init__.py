"""The page of `balanced chat --web` (the extra `[chat]`)."""
