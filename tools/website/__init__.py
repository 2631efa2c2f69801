"The documentation site and README.md, made from the notebooks."
