"""What runs inside the lab, or as a process of its own beside it: single programs, standard library only, started by path."""
