"The laboratory: tasks, runs and experiments. Not part of the API."
