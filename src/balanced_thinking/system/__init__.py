"""The operating system: files, locks, processes, memory, how a process ends."""
