"Data sets, splits without leaks, and the official files of four tasks."
