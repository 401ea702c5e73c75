"""Vocabulary pruning: the tokens that a corpus uses, with the rows of the embeddings that go with them."""
