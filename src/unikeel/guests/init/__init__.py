"""The init of guests that are made of ordinary images: a static program of ours in C, without a C library."""
