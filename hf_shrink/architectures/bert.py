"""BERT (MiniLM among its checkpoints), RoBERTa and DistilBERT: encoders with learned positions."""

from dataclasses import replace

from hf_shrink.architectures.description import Architecture, Attention, FeedForward, LayerStack

BERT = Architecture(
    model_types=("bert",),
    stacks=(
        LayerStack(
            name="encoder",
            path="encoder.layer",
            depth_fields=("num_hidden_layers",),
            heads_field="num_attention_heads",
            ffn_field="intermediate_size",
            attention=Attention(
                query="attention.self.query",
                key="attention.self.key",
                value="attention.self.value",
                output="attention.output.dense",
                plain_when={"position_embedding_type": "absolute"},  # transformers 5 has no other
                head_counts={"attention.self.num_attention_heads": "heads", "attention.self.all_head_size": "width"},
            ),
            feed_forward=FeedForward(up="intermediate.dense", down="output.dense"),
            layer_index=("attention.self", "crossattention.self"),  # the second only where add_cross_attention is set
        ),
    ),
    hidden_field="hidden_size",
    cuts=frozenset({"layers", "ffn", "vocabulary"}),
    vocabulary_field="vocab_size",
    positions_field="max_position_embeddings",
    token_embeddings="embeddings.word_embeddings",
    position_embeddings="embeddings.position_embeddings",
    output_embeddings=("cls.predictions.decoder",),
    vocabulary_biases=("cls.predictions.bias",),
    output_layers=("classifier", "qa_outputs", "cls.predictions.decoder", "cls.seq_relationship"),
)

ROBERTA = replace(
    BERT,
    model_types=("roberta", "xlm-roberta", "camembert"),
    output_embeddings=("lm_head.decoder",),
    vocabulary_biases=("lm_head.bias",),
    output_layers=("classifier", "classifier.out_proj", "qa_outputs", "lm_head.decoder"),
)

DISTILBERT = Architecture(
    model_types=("distilbert",),
    stacks=(
        LayerStack(
            name="encoder",
            path="transformer.layer",
            depth_fields=("n_layers",),
            heads_field="n_heads",
            ffn_field="hidden_dim",
            attention=Attention(
                query="attention.q_lin",
                key="attention.k_lin",
                value="attention.v_lin",
                output="attention.out_lin",
                plain_when={},
                head_counts={"attention.n_heads": "heads", "attention.dim": "width"},
            ),
            feed_forward=FeedForward(up="ffn.lin1", down="ffn.lin2"),
        ),
    ),
    hidden_field="dim",
    cuts=frozenset({"layers", "ffn", "vocabulary"}),
    vocabulary_field="vocab_size",
    positions_field="max_position_embeddings",
    token_embeddings="embeddings.word_embeddings",
    position_embeddings="embeddings.position_embeddings",
    output_embeddings=("vocab_projector",),
    vocabulary_biases=("vocab_projector.bias",),
    output_layers=("classifier", "qa_outputs", "vocab_projector"),
)
