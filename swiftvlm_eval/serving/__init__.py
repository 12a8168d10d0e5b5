"""The way to a serving engine: the visual rows that a method hands to the decoder, written as files."""
