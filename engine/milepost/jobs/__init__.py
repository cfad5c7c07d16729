"""Running the work: loops that survive, and jobs of batches."""
