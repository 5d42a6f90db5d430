"""Reading an answer and scoring it. Data checks, rewards and evaluation share this code."""
