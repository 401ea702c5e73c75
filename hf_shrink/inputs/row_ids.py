"""What a numbered batch carries past `forward`: which row is which, and the labels that a loss may take away."""

ROW_IDS = "hf_shrink_row_ids"  # shape (B,), position of each row in the training set
ROW_LABELS = "hf_shrink_row_labels"  # the batch's labels, as the collator made them
CARRIED = (ROW_IDS, ROW_LABELS)
