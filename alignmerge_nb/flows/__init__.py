"Invertible networks and their certificates."
