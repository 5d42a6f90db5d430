"""The operating system: files, locks, processes, memory, and clean-up at the end of a process."""
