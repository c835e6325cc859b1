"""What is measured, one file for what is measured together. Each has one function ``measure(stage, plan, board, progress)``.

All take their samples in rounds over images and strategies, so that the host's noise hits all series alike.
"""
