"""What an answer says and whether it is right. Data checks, rewards and evaluation share this."""
