"""The settings of training: those of any loop, of a network under a rule, of a whole run; and as text."""
