"""The tumor network: its shapes, its seams, what it is exported to, and which configurations it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from arm_overlay.network import OUTPUT_STRIDE, TOTAL_STRIDE, TumorNetworkConfig, build_network, build_trainer
from lincei.errors import LinceiError

keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL = TumorNetworkConfig(expansion_share=0.1, width=8)


def colors(height, width, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    return build_network(SMALL.to_json())


def run(network, pixels):
    return np.asarray(network(pixels, training=False))[0, ..., 0]


def test_a_cell_of_8_pixels_has_one_probability(network):
    answer = run(network, colors(64, 96))
    assert answer.shape == (64 // OUTPUT_STRIDE, 96 // OUTPUT_STRIDE)
    assert answer.min() >= 0
    assert answer.max() <= 1


def test_tiles_with_the_halo_join_without_a_seam(network):
    halo, side = SMALL.halo_px, 2 * TOTAL_STRIDE
    image = colors(2 * halo + side, 2 * halo + 4 * side)
    whole = run(network, image)
    left = halo + 2 * side
    tile = run(network, image[:, :, left - halo : left + side + halo])
    inner = slice(halo // OUTPUT_STRIDE, (halo + side) // OUTPUT_STRIDE)
    columns = slice(left // OUTPUT_STRIDE, (left + side) // OUTPUT_STRIDE)
    np.testing.assert_allclose(tile[inner, inner], whole[inner, columns], atol=1e-5)


def test_nothing_further_than_the_halo_matters_and_something_near_it_does(network):
    halo = SMALL.halo_px
    size = 2 * halo + 2 * TOTAL_STRIDE
    image = colors(size, size)
    cell = (slice(halo // OUTPUT_STRIDE, None), halo // OUTPUT_STRIDE)

    def changed(columns):
        other = image.copy()
        other[:, :, columns] = 0
        return np.abs(run(network, other) - run(network, image))[cell].max()

    # The halo is a multiple of the stride: what reaches furthest lies less than a stride inside it.
    assert changed(slice(halo + OUTPUT_STRIDE + halo, None)) == 0
    assert changed(slice(halo + OUTPUT_STRIDE, halo + 3 * OUTPUT_STRIDE)) > 0


def test_recalibration_is_part_of_the_network():
    keras.utils.set_random_seed(2)
    trainer = build_trainer(SMALL)
    served = build_network(TumorNetworkConfig(0.1, 8, sharpening=0.5, offset=-1.0).to_json())
    served.set_weights(trainer.get_weights())
    image = colors(32, 32)
    logits = run(trainer, image)
    np.testing.assert_allclose(run(served, image), 1 / (1 + np.exp(1 - 0.5 * logits)), atol=1e-5)


def test_the_exported_network_takes_any_multiple_of_the_stride(network, tmp_path):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    from lincei.keras_network import export_onnx

    path = export_onnx(
        network, tmp_path / "n.onnx", channels=3, output_names=["probability"], input_name="field"
    )
    core = openvino.Core()
    exported = core.read_model(path)
    for height, width in ((32, 64), (80, 48)):
        exported.reshape([1, 3, height, width])
        compiled = core.compile_model(exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        image = colors(height, width)
        answer = compiled([np.ascontiguousarray(np.moveaxis(image, -1, 1))])[0]
        np.testing.assert_allclose(answer[0, 0], run(network, image), atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {"width": 2},
        {"expansion_share": 0},
        {"sharpening": 0.0},
        {"offset": 1e6},
        {"width": "64"},
        {"more": 1},
    ],
)
def test_a_configuration_of_another_network_is_refused(changed):
    with pytest.raises(LinceiError, match="configuration"):
        TumorNetworkConfig.from_json({**SMALL.to_json(), **changed})


def test_a_configuration_survives_being_stored():
    assert TumorNetworkConfig.from_json(SMALL.to_json()) == SMALL
