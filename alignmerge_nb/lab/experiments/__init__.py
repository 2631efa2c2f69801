"One module per experiment: its options and its run."
