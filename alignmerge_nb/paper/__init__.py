"From published rows to statistics, tables, figures and claims. Not part of the API."
