"""TextVQA with and without OCR tokens in the prompt."""
