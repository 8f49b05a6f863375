"""The command `howdah`: it starts everything, and answers where labels and models come from."""
