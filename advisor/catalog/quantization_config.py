"""The `quantization_config` of a config.json -> Checkpoint: how the file beside it stores the weights.

Every field is checked when it is used, as those of the model are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from advisor.catalog.fields import Fields
from advisor.catalog.storage import REFUSED, bitsandbytes, dequantized, fp8, grouped, refused_mixture, with_experts
from advisor.checkpoints import STORES, Checkpoint
from advisor.errors import shown
from advisor.specs import ModelSpec

_KEYS = ("quantization_config", "compression_config")
"""The second is what compressed-tensors wrote before it wrote the first."""
_ATTENTION = re.compile(r"(?:self_)?attn|attention|self_attention")
_MLP = re.compile(r"mlp|feed_forward|ffn|block_sparse_moe")
_OF_A_LAYER = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(\d{1,6})(?:\.(.+))?")
_BESIDE_THE_TEXT = re.compile(r"vis(?:ion|ual)|audio|multi_modal|(?<!de)encoder")
_MAX_NAMES = 100_000
_SIXTEEN = "take the id of the same model in 16 bits"
_TRAINS_NOT = "transformers 5.23 does not train on {}: " + _SIXTEEN
_NOT_KNOWN = "what training does with {} is not known here: " + _SIXTEEN
_UNTRAINABLE = ("nvfp4", "fbgemm_fp8", "higgs", "spqr", "vptq", "quark", "auto-round", "metal", "gguf", "gemma")
"""Methods whose quantizer says `is_trainable` False: transformers 5.23, quantizers/quantizer_*.py."""


def checkpoint_of(config: Mapping[str, object], m: ModelSpec, origin: str) -> Checkpoint | None:
    """How the checkpoint of `config`, which describes `m`, stores its weights; None for 16 or 32 bits.

    Raises BadConfig for a field that cannot be used, and for a form that nothing here trains on.
    """
    outer = Fields(config, origin)
    key = next((key for key in _KEYS if outer.has(key)), _KEYS[0])
    fields = outer.part(key)
    found = _read(fields, m)
    if found is None:
        return None
    if refusal := refused_mixture(found, m):
        raise fields.bad("quant_method", f"is {found.method!r}: {refusal}")
    return with_experts(found, m)


def _read(fields: Fields, m: ModelSpec) -> Checkpoint | None:
    four, eight = fields.flag("load_in_4bit", False), fields.flag("load_in_8bit", False)
    method = "bitsandbytes" if four or eight else fields.text("quant_method", "").strip().lower()
    if not method:
        raise fields.bad("quant_method", "is missing: it says how the weights are stored, for example 'gptq'")
    if method == "bitsandbytes":
        return _bitsandbytes(fields, m, four, eight)
    if method == "gptq":
        return _packed(fields, m, "gptq")
    if method == "awq":
        return _packed(fields, m, "awq")
    if method == "hqq":
        return _hqq(fields, m)
    if method == "fp8":
        return _fp8(fields, m)
    if method == "mxfp4":
        return dequantized("MXFP4", "mxfp4")
    if method == "compressed-tensors":
        what = fields.text("format", "")
        return dequantized(f"{what or 'quantized'}, by compressed-tensors", method)
    if method in _UNTRAINABLE:
        raise fields.bad("quant_method", f"is {method!r}, but {_TRAINS_NOT.format('it')}")
    reason = REFUSED.get(method, _NOT_KNOWN.format("it"))
    raise fields.bad("quant_method", f"is {shown(repr(method), 60)}: {reason}")


def _bitsandbytes(fields: Fields, m: ModelSpec, four: bool, eight: bool) -> Checkpoint | None:
    """Without keys, fp4 and one level. Source: transformers 5.23, utils/quantization_config.py, BitsAndBytesConfig."""
    if four and eight:
        raise fields.bad("load_in_8bit", "is true, and load_in_4bit as well: only one can be")
    if not (four or eight):  # neither: nothing is quantized
        return None
    whole, unknown = _whole(fields, "llm_int8_skip_modules", m)
    if eight:
        return bitsandbytes("int8", whole=whole, unknown=unknown)
    quant = fields.text("bnb_4bit_quant_type", "fp4")
    if quant not in ("nf4", "fp4"):
        raise fields.bad("bnb_4bit_quant_type", f"is {shown(repr(quant), 60)}: expected 'nf4' or 'fp4'")
    double = fields.flag("bnb_4bit_use_double_quant", False)
    return bitsandbytes(quant, double_quant=double, whole=whole, unknown=unknown)


def _check_bits(fields: Fields, key: str, bits: int, known: tuple[int, ...]) -> None:
    if bits not in known:
        raise fields.bad(key, f"is {bits}: known are {', '.join(map(str, known))}")


def _packed(fields: Fields, m: ModelSpec, method: Literal["gptq", "awq"]) -> Checkpoint:
    """GPTQ and AWQ; a group of -1 is a whole row. Source: GPTQConfig and AwqConfig there."""
    bits = fields.size("bits", 4, minimum=2, maximum=8)
    _check_bits(fields, "bits", bits, STORES[method].bits)
    group = fields.size("group_size", 128, minimum=-1)
    if method == "awq" and fields.text("version", "gemm").lower() != "gemm":
        raise fields.bad("version", f"is {shown(repr(fields.config['version']), 60)}: only 'gemm' is known here")
    whole, unknown = _whole(fields, "modules_to_not_convert", m)
    if fields.has("modules_in_block_to_quantize"):
        whole = _whole_but(fields, "modules_in_block_to_quantize", m)
    if fields.has("dynamic"):
        unknown = (*unknown, "which of its layers are stored otherwise (its quantization_config lists them)")
    return grouped(method, bits, max(group, 0), whole=whole, unknown=unknown)


def _whole_but(fields: Fields, key: str, m: ModelSpec) -> tuple[tuple[str, ...], ...]:
    """For each layer the linear layers left in 16 bits, where lists name those that are quantized.

    Source: optimum 2.3, gptq/quantizer.py, GPTQQuantizer.convert_model.
    """
    groups = fields.items(key)
    if not all(isinstance(group, list) and all(isinstance(name, str) for name in group) for group in groups):
        raise fields.bad(key, "must be a list of lists of names of modules")
    stored = {name.rpartition(".")[2] for group in groups for name in group}
    left = tuple(name for name in (*m.qkv_names, m.out_name, *m.mlp_names) if name not in stored)
    return (left,) * m.num_hidden_layers if left else ()


def _hqq(fields: Fields, m: ModelSpec) -> Checkpoint:
    """One setting for all layers, or one for each kind. Source: HqqConfig there."""
    inner = fields.part("quant_config")
    if not inner.has("weight_quant_params"):
        raise inner.bad("weight_quant_params", "is missing: settings of each kind of layer are not known here")
    weights = inner.part("weight_quant_params")
    bits, group = weights.size("nbits", 4, maximum=8), weights.optional_size("group_size", 0)
    _check_bits(weights, "nbits", bits, STORES["hqq"].bits)
    if fields.has("skip_modules"):
        whole, unknown = _whole(fields, "skip_modules", m)
        return grouped("hqq", bits, group, whole=whole, unknown=unknown)
    return grouped("hqq", bits, group)


def _fp8(fields: Fields, m: ModelSpec) -> Checkpoint:
    """Source: FineGrainedFP8Config there; null for weight_block_size is one scale a tensor."""
    block = 0 if fields.is_null("weight_block_size") else 128
    sides: list[Any] = fields.items("weight_block_size")
    if sides:
        if len(sides) != 2 or any(type(one) is not int or not 0 < one <= 100_000 for one in sides):
            raise fields.bad("weight_block_size", "must be two positive integers")
        if sides[0] != sides[1]:
            raise fields.bad("weight_block_size", f"is {sides[0]} by {sides[1]}: only squares are known here")
        block = sides[0]
    key = "modules_to_not_convert" if fields.has("modules_to_not_convert") else "ignored_layers"
    whole, unknown = _whole(fields, key, m)
    return fp8(block, whole=whole, unknown=unknown)


def _whole(fields: Fields, key: str, m: ModelSpec) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """(for each layer the linear layers left in 16 bits, what is not known) of a list of modules.

    An entry names a layer, a block or a linear layer of it, or a linear layer of all layers. The output embedding and
    the parts of a multimodal model beside its text tower are passed over. Ignores: an output embedding that an explicit
    list leaves out, which is then quantized; here it counts in 16 bits.
    """
    entries = fields.items(key)
    if len(entries) > _MAX_NAMES or not all(isinstance(entry, str) for entry in entries):
        raise fields.bad(key, "must be a list of names of modules")
    attention, mlp = (*m.qkv_names, m.out_name), m.mlp_names
    found: list[dict[str, None]] = [{} for _ in range(m.num_hidden_layers)]
    for entry in entries:
        match = _OF_A_LAYER.fullmatch(entry)
        if _BESIDE_THE_TEXT.search(entry):
            continue
        rest = (match[2] or "").split(".") if match else [entry.rpartition(".")[2]]
        name = rest[-1]
        if match and not match[2]:
            names: tuple[str, ...] = (*attention, *mlp)
        elif name in (*attention, *mlp):
            names = (name,)
        elif match and _ATTENTION.fullmatch(name):
            names = attention
        elif match and _MLP.fullmatch(name):
            names = mlp
        else:
            names = ()
        if match and int(match[1]) >= m.num_hidden_layers:
            names = ()  # a layer that predicts further tokens
        for layer in (found[int(match[1])],) if match and names else found if names else ():
            layer.update(dict.fromkeys(names))
    patterns = [entry for entry in entries if re.search(r"[*\\^$\[\]()|+?]|^re:", entry)]
    unknown = (
        (f"which layers {shown(patterns[0], 60)!r} of its quantization_config leaves in 16 bits",) if patterns else ()
    )
    whole = tuple(tuple(sorted(layer)) for layer in found)
    return (whole if any(whole) else ()), unknown
