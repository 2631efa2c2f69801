"Small heads over token sequences of several modalities."
