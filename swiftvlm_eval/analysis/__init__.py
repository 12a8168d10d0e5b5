"""What methods do to a model, looked at closely: analyses and pictures."""
