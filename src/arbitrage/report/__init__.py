"""What an evaluation shows to people: words, tables, pictures and one page."""
