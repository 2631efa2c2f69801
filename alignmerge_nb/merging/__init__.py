"Merging the weights of two networks."
