"""From a trained folder to one that is handed over: saved, described, calibrated, exported, proven."""
