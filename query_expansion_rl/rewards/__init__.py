"""What an expansion is worth: the change of a ranking by a judge, and the guards against cheating it."""
