"""Files: those that a user names, read and written with care, and the formats of those in the user's data folder."""
