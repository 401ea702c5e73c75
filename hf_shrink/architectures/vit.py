"""ViT: an encoder over image patches. transformers 5 renamed its modules, hence the paths from `versions`."""

from hf_shrink.architectures.description import Architecture, Attention, Cut, FeedForward, LayerStack
from hf_shrink.versions import vit_names

NAMES = vit_names()
CUTS: frozenset[Cut] = frozenset({"layers", "ffn"})

VIT = Architecture(
    model_types=("vit",),
    stacks=(
        LayerStack(
            name="encoder",
            path=NAMES.layers,
            depth_fields=("num_hidden_layers",),
            heads_field="num_attention_heads",
            ffn_field="intermediate_size",
            attention=Attention(
                query=NAMES.query,
                key=NAMES.key,
                value=NAMES.value,
                output=NAMES.output,
                plain_when={},
                head_counts=NAMES.head_counts,
            ),
            feed_forward=FeedForward(up=NAMES.up, down=NAMES.down),
            head_dim_field=NAMES.head_dim_field,
        ),
    ),
    hidden_field="hidden_size",
    cuts=CUTS | {"heads"} if NAMES.head_dim_field else CUTS,
    output_layers=("classifier",),
)
