"""Recovery: dead work is found, judged and carried on."""
