"""The way in and the way out: checking submitted records, listing missing ones, and publishing boards as a site."""
