"""From a board to Markdown, HTML, pictures and data files."""
