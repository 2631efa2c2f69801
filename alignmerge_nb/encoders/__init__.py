"Frozen encoders: what they are, and the models behind them."
