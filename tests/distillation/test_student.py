import copy
import json

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModel, BertConfig, BitsAndBytesConfig, GenerationConfig, GenerationMixin

from hf_shrink.architectures import find_layers
from hf_shrink.distillation import make_student
from hf_shrink.distillation.student import spread_layers
from hf_shrink.errors import ShrinkError
from tests.architectures.models import (
    FAMILIES,
    HEADS,
    answer,
    auto_class,
    tiny_inputs,
    tiny_model,
)

TWO_STACKS = ("t5", "gated-t5", "whisper")
GENERATORS = tuple(family for family in FAMILIES if HEADS[family][0] in ("CausalLM", "Seq2SeqLM", "SpeechSeq2Seq"))


def reload(model, folder, head, **options):
    """Save a model and load it as a user would."""
    model.save_pretrained(folder)
    loaded, report = auto_class(head).from_pretrained(folder, output_loading_info=True, dtype=model.dtype, **options)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    for (
        parameter
    ) in loaded.parameters():  # mapped from the file they lie anywhere, which can move a product's last bit
        parameter.data = parameter.data.clone()
    return loaded


def assert_same_model(one, other):
    weights, others = one.state_dict(), other.state_dict()
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), name


def settings(model):
    config = model.config.to_dict()
    for name in ("architectures", "_name_or_path", "transformers_version", "hf_shrink_layers", "dtype", "torch_dtype"):
        config.pop(name, None)
    return config


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_all_layers_is_a_copy_to_the_last_bit(family):
    teacher = tiny_model(family)
    student = (
        make_student(teacher, layers=None, encoder_layers=None, decoder_layers=list(range(3)))
        if (family in TWO_STACKS)
        else make_student(teacher, 4)
    )
    assert_same_model(student, teacher)
    assert torch.equal(answer(student), answer(teacher))
    assert settings(student) == settings(teacher)


@pytest.mark.parametrize("layers", [[0, 3], [1, 2], [0, 2, 3], [3]])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in TWO_STACKS])
def test_students_load_natively_and_answer_alike(family, layers, tmp_path):
    teacher = tiny_model(family)
    before = copy.deepcopy(teacher.state_dict()), settings(teacher)
    student = make_student(teacher, layers=layers)
    (stack,) = find_layers(student).values()
    (original,) = find_layers(teacher).values()
    assert (len(stack), len(original)) == (len(layers), 4)
    for layer, index in zip(stack, layers, strict=True):
        assert_same_model(layer, original[index])
    loaded = reload(student, tmp_path, HEADS[family][0])
    assert torch.equal(answer(loaded), answer(student))
    assert settings(loaded) == settings(student)
    assert not torch.equal(answer(student), answer(teacher))
    # the teacher is as it was, and shares nothing with the student
    assert all(torch.equal(weight, before[0][name]) for name, weight in teacher.state_dict().items())
    assert settings(teacher) == before[1]
    assert not {p.data_ptr() for p in teacher.parameters()} & {p.data_ptr() for p in student.parameters()}


@pytest.mark.parametrize(("encoder", "decoder"), [([0, 3], [0, 2]), ([1, 3], [1, 2]), (4, [2]), ([2], 3)])
@pytest.mark.parametrize("family", TWO_STACKS)
def test_encoder_and_decoder_are_cut_apart(family, encoder, decoder, tmp_path):
    teacher = tiny_model(family)
    student = make_student(teacher, encoder_layers=encoder, decoder_layers=decoder)
    kept = {
        "encoder": list(range(4)) if encoder == 4 else encoder,
        "decoder": list(range(3)) if decoder == 3 else decoder,
    }
    assert student.config.hf_shrink_layers == kept
    assert student.config.num_hidden_layers == len(kept["encoder"])
    for name, layers in find_layers(student).items():
        for layer, index in zip(layers, kept[name], strict=True):
            original = find_layers(teacher)[name][index].state_dict()
            own = layer.state_dict()
            assert all(torch.equal(own[key], weight) for key, weight in original.items() if key in own)
    loaded = reload(student, tmp_path, HEADS[family][0])
    assert torch.equal(answer(loaded), answer(student))
    assert settings(loaded) == settings(student)


@pytest.mark.parametrize(
    ("family", "head"), [(family, head) for family in FAMILIES for head in ("", *HEADS[family][1:])]
)
def test_every_head_loads_natively(family, head, tmp_path):
    teacher = tiny_model(family, head)
    student = make_student(teacher, 2)
    loaded = reload(student, tmp_path, head)
    assert torch.equal(answer(loaded), answer(student))
    assert {len(layers) for layers in find_layers(loaded).values()} == {2}


@pytest.mark.parametrize("family", GENERATORS)
def test_students_generate_with_a_cache_as_without(family, tmp_path):
    student = make_student(tiny_model(family), layers=[0, 2])
    inputs = tiny_inputs(student)
    inputs.pop("decoder_input_ids", None)
    if student.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.full((2, 1), student.config.decoder_start_token_id)

    def generate(model, **cache):  # past Whisper's own generate, which calls this one with deprecated arguments
        settings = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, **cache}
        return GenerationMixin.generate(model, **inputs, **settings)

    tokens = generate(student, use_cache=True)
    assert torch.equal(tokens, generate(student, use_cache=False))
    assert torch.equal(tokens, generate(reload(student, tmp_path, HEADS[family][0])))


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_counted_after_the_teacher_has_shown_its_own(family):
    teacher = tiny_model(family)
    teacher(**tiny_inputs(teacher), output_hidden_states=True)  # transformers 5 hooks the layers here
    student = make_student(teacher, 2)
    outputs = student(**tiny_inputs(student), output_hidden_states=True)
    name = "encoder_hidden_states" if family in TWO_STACKS else "hidden_states"
    assert len(outputs[name]) == 3


def test_layers_are_spread_evenly():
    assert spread_layers(2, 6) == [0, 5]
    assert spread_layers(3, 6) == [0, 2, 5]
    assert spread_layers(6, 12) == [0, 2, 4, 7, 9, 11]
    assert spread_layers(1, 6) == [0]
    assert spread_layers(6, 6) == [0, 1, 2, 3, 4, 5]
    for depth in range(1, 30):
        for count in range(1, depth + 1):
            layers = spread_layers(count, depth)
            assert layers == sorted(set(layers))
            assert len(layers) == count
            assert layers[0] == 0
            assert count == 1 or layers[-1] == depth - 1


def test_the_map_stands_in_the_config_file(tmp_path):
    student = make_student(tiny_model("bert", num_hidden_layers=6), 2)
    student.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["hf_shrink_layers"] == {"encoder": [0, 5]}
    assert saved["num_hidden_layers"] == 2
    assert AutoModel.from_pretrained(tmp_path).config.hf_shrink_layers == {"encoder": [0, 5]}


def test_one_number_goes_for_both_stacks():
    student = make_student(tiny_model("t5"), 2)
    assert student.config.hf_shrink_layers == {"encoder": [0, 3], "decoder": [0, 2]}
    assert make_student(tiny_model("whisper"), layers=[0, 1]).config.hf_shrink_layers == dict.fromkeys(
        ("encoder", "decoder"), [0, 1]
    )


def test_a_teacher_may_be_a_folder(tmp_path):
    teacher = tiny_model("bert", "SequenceClassification")
    teacher.save_pretrained(tmp_path)
    student = make_student(tmp_path, layers=[1, 3])
    assert torch.equal(answer(student), answer(make_student(teacher, layers=[1, 3])))


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_dtype_is_kept(family, tmp_path):
    teacher = tiny_model(family).to(torch.bfloat16)
    teacher.save_pretrained(tmp_path / "teacher")
    teacher = auto_class(HEADS[family][0]).from_pretrained(tmp_path / "teacher", dtype=torch.bfloat16)
    student = make_student(teacher, 2)
    assert {p.dtype for p in student.parameters()} == {torch.bfloat16}
    assert student.device == teacher.device
    loaded = reload(student, tmp_path / "student", HEADS[family][0])
    assert torch.equal(answer(loaded), answer(student))


@pytest.mark.parametrize("family", ["bert", "gpt2", "gemma", "t5", "whisper"])
def test_ties_hold(family):
    student = make_student(tiny_model(family), 2)
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    untied = make_student(tiny_model("llama"), 2)
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight


def test_all_train_even_where_the_teacher_is_frozen():
    teacher = tiny_model("bert").requires_grad_(False)
    student = make_student(teacher, 2)
    assert all(p.requires_grad for p in student.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not student.training
    assert make_student(teacher.train(), 2).training is False
    assert teacher.training
    whisper = make_student(tiny_model("whisper"), 2)
    frozen = [name for name, p in whisper.named_parameters() if not p.requires_grad]
    assert frozen == ["model.encoder.embed_positions.weight"]


def test_gradients_of_the_teacher_do_not_come_along():
    teacher = tiny_model("bert")
    teacher(**tiny_inputs(teacher)).logits.sum().backward()
    assert all(p.grad is None for p in make_student(teacher, 2).parameters())


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_layers_that_saw_everything_still_do(family):
    student = make_student(tiny_model(family, max_window_layers=3), layers=[1, 2, 3])
    assert student.config.layer_types == ["full_attention", "full_attention", "sliding_attention"]
    assert student.config.max_window_layers == 2
    untouched = make_student(tiny_model(family, max_window_layers=28), 2)
    assert untouched.config.max_window_layers == 28


def test_windows_follow_their_layers():
    teacher = tiny_model("gemma2")
    assert teacher.config.layer_types == ["sliding_attention", "full_attention"] * 2
    student = make_student(teacher, layers=[1, 3])
    assert student.config.layer_types == ["full_attention"] * 2


def layer_output(model, index, **inputs):
    (layers,) = find_layers(model).values()
    hidden = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        output = layers[index](hidden, **inputs)
    return output[0] if isinstance(output, tuple) else output


def test_attention_scaled_by_its_index_is_kept(tmp_path):
    setting = {"scale_attn_by_inverse_layer_idx": True, "add_cross_attention": True}
    # Elsewhere than in its eager attention transformers 4 forgets the setting.
    teacher = tiny_model("gpt2", **setting, attn_implementation="eager")
    student = make_student(teacher, layers=[3])
    others = {"encoder_hidden_states": torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(4))}
    for inputs in ({}, others):
        assert torch.allclose(layer_output(student, 0, **inputs), layer_output(teacher, 3, **inputs), atol=1e-5)
    assert not torch.allclose(layer_output(student, 0, **others), layer_output(student, 0), atol=1e-2)
    loaded = reload(student, tmp_path, "CausalLM", attn_implementation="eager")
    assert torch.equal(answer(loaded), answer(student))


def test_the_position_bias_moves_to_the_new_first_layer(tmp_path):
    teacher = tiny_model("t5")
    student = make_student(teacher, encoder_layers=[1, 3], decoder_layers=[2])
    for stack in ("encoder", "decoder"):
        own, theirs = find_layers(student)[stack], find_layers(teacher)[stack]
        bias = "layer.0.SelfAttention.relative_attention_bias"
        assert torch.equal(own[0].get_submodule(bias).weight, theirs[0].get_submodule(bias).weight)
        assert not [name for layer in own[1:] for name, _ in layer.named_modules() if "relative" in name]
        assert bias not in dict(theirs[1].named_modules())
    for stack, depth in (("encoder", 2), ("decoder", 1)):
        loaded = reload(student, tmp_path, "Seq2SeqLM")
        assert getattr(student, stack).config.num_layers == depth
        assert getattr(loaded, stack).config.num_layers == depth


def test_word_timestamps_follow_the_decoder(tmp_path):
    teacher = tiny_model("whisper")
    teacher.generation_config = GenerationConfig(alignment_heads=[[0, 1], [1, 0], [2, 3]])
    student = make_student(teacher, decoder_layers=[0, 2])
    assert student.generation_config.alignment_heads == [[0, 1], [1, 3]]
    assert teacher.generation_config.alignment_heads == [[0, 1], [1, 0], [2, 3]]
    assert reload(student, tmp_path, "SpeechSeq2Seq").generation_config.alignment_heads == [[0, 1], [1, 3]]
    teacher.generation_config = GenerationConfig(alignment_heads=[[1, 0]])
    assert "alignment_heads" not in vars(make_student(teacher, decoder_layers=[0]).generation_config)


def test_weights_of_the_layers_are_cut_with_them(tmp_path):
    teacher = tiny_model("whisper", "AudioClassification", use_weighted_layer_sum=True)
    with torch.no_grad():
        teacher.layer_weights.copy_(torch.arange(5.0))
    student = make_student(teacher, encoder_layers=[1, 3])
    assert student.layer_weights.tolist() == [0, 2, 4]
    loaded = reload(student, tmp_path, "AudioClassification")
    assert torch.equal(answer(loaded), answer(student))


def test_cross_attention_of_an_encoder_turned_decoder(tmp_path):
    teacher = tiny_model("bert", "CausalLM", is_decoder=True, add_cross_attention=True)
    student = make_student(teacher, layers=[1, 3])
    indices = [m.layer_idx for _, m in student.named_modules() if "layer_idx" in vars(m)]
    assert indices == [0, 0, 1, 1]


def test_a_student_may_teach():
    middle = make_student(tiny_model("bert", num_hidden_layers=6), layers=[0, 2, 5])
    student = make_student(middle, layers=[0, 2])
    assert student.config.hf_shrink_layers == {"encoder": [0, 2]}  # of its own teacher
    assert middle.config.hf_shrink_layers == {"encoder": [0, 2, 5]}


def test_mixed_precision_of_the_teachers_training_stays_behind():
    teacher = tiny_model("bert")
    usual = answer(make_student(teacher, 2))
    Accelerator(mixed_precision="bf16", cpu=True).prepare_model(teacher)
    wrapped = answer(teacher)
    student = make_student(teacher, 2)
    assert torch.equal(answer(student), usual)
    assert torch.equal(answer(teacher), wrapped)


def test_unknown_parts_come_along():
    teacher = tiny_model("bert")
    teacher.probe = nn.Linear(2, 2)
    assert torch.equal(make_student(teacher, 2).probe.weight, teacher.probe.weight)


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("bert", {}, "`num_hidden_layers` must be given"),
        ("bert", {"num_hidden_layers": 5}, r"`num_hidden_layers` must be in \[1, 4\] .*got 5"),
        ("bert", {"num_hidden_layers": 0}, r"`num_hidden_layers` must be in \[1, 4\] .*got 0"),
        ("bert", {"num_hidden_layers": -1}, "got -1"),
        ("bert", {"num_hidden_layers": 2.0}, "`num_hidden_layers` must be a whole number, got 2.0"),
        ("bert", {"num_hidden_layers": True}, "must be a whole number, got True"),
        ("bert", {"num_hidden_layers": [0, 1]}, "For a list of layers use `layers`"),
        ("bert", {"num_hidden_layers": 2, "layers": [0, 1]}, "`num_hidden_layers` must be given alone, got layers"),
        ("t5", {"num_hidden_layers": 2, "decoder_layers": 1}, "`num_hidden_layers` must be given alone, got decoder"),
        ("t5", {"layers": [0], "encoder_layers": 1}, "`layers` must be given alone, got encoder_layers"),
        ("bert", {"layers": []}, "`layers` must hold rising indices .*keep at least one"),
        ("bert", {"layers": [0, 4]}, r"`layers` must hold rising indices in \[0, 3\] .*got \[0, 4\]"),
        ("bert", {"layers": [-1]}, r"got \[-1\]"),
        ("bert", {"layers": [1, 1]}, "each once"),
        ("bert", {"layers": [2, 0]}, "rising"),
        ("bert", {"layers": 2}, "`layers` must be a list of whole numbers, got 2"),
        ("bert", {"layers": "02"}, "`layers` must be a list of whole numbers, got '02'"),
        ("bert", {"layers": [0.5]}, "`layers` must be a list of whole numbers"),
        ("bert", {"decoder_layers": 2}, "`decoder_layers` must be left out for BertForMaskedLM, which has no decoder"),
        ("gpt2", {"encoder_layers": 2}, "`encoder_layers` must be left out for GPT2LMHeadModel"),
        ("t5", {"decoder_layers": 4}, r"`decoder_layers` must be in \[1, 3\] \(the teacher's decoder layers\), got 4"),
        ("t5", {"decoder_layers": [0, 3]}, r"`decoder_layers` must hold rising indices in \[0, 2\]"),
        ("t5", {"layers": [0, 3]}, r"`layers` must hold .* in \[0, 2\] \(the teacher's decoder layers\)"),
        ("t5", {"num_hidden_layers": 4}, r"`num_hidden_layers` must be in \[1, 3\] \(the teacher's decoder layers\)"),
    ],
)
def test_bad_layers_are_refused(family, given, message):
    with pytest.raises(ShrinkError, match=message):
        make_student(tiny_model(family), **given)


def test_bad_teachers_are_refused(tmp_path):
    with pytest.raises(ShrinkError, match="`teacher` must be a transformers model, got Linear"):
        make_student(nn.Linear(2, 2), 1)
    adapter = get_peft_model(tiny_model("bert"), LoraConfig(target_modules=["query"]))
    with pytest.raises(ShrinkError, match=r"merge_and_unload\(\)"):
        make_student(adapter, 1)
    tiny_model("bert").save_pretrained(tmp_path / "float")
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    quantized = AutoModel.from_pretrained(tmp_path / "float", quantization_config=nf4, device_map="cpu")
    with pytest.raises(ShrinkError, match="`teacher` must have float weights .*quantized BertModel"):
        make_student(quantized, 1)
    marked = tiny_model("bert")
    marked.config.quantization_config = {"quant_method": "torchao"}  # whose weights look like float ones
    with pytest.raises(ShrinkError, match="`teacher` must have float weights"):
        make_student(marked, 1)
    with torch.device("meta"):
        nowhere = AutoModel.from_config(BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=2))
    with pytest.raises(ShrinkError, match="`teacher` must be in memory"):
        make_student(nowhere, 1)
    with pytest.raises(ShrinkError, match="does not exist"):
        make_student(tmp_path / "nothing", 1)
