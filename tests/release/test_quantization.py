"""Which products of a graph stay in float32."""

from rag_core.engines.identity import describe_model
from rag_core.release.graph import PlainGraph
from rag_core.release.quantization import products_in
from tests.exports import MARKS

pytestmark = MARKS


def test_a_part_is_whole_names(sharp_cross_encoder, tmp_path):
    plain = PlainGraph(describe_model(sharp_cross_encoder), tmp_path)
    of_output, of_attention, of_both = (
        set(products_in(plain.path, [part])) for part in ("layer.*.output", "attention.output", "output")
    )
    assert of_output and of_attention and not of_output & of_attention
    assert of_both == of_output | of_attention
