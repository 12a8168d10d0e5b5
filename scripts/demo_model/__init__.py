"""How the demo model is made; nothing here is needed to use it."""
