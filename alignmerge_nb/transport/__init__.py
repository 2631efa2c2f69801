"Couplings: costs, Sinkhorn, small problems in batches, divergences and Gromov-Wasserstein."
