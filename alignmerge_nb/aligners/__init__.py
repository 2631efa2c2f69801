"Maps that bring two feature spaces together, their table, and the rule by which settings are chosen."
