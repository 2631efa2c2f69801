"The steps of the paper: run notebooks, render tables, set the PDF, compare rows, compute a sample."
