"Retrieval, similarity of spaces, information, BLEU."
