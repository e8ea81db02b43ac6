"""The signal path that all networks of this project share: split, layers, decode, filter."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from bsbimamba.network.bands import BandSplit
from bsbimamba.network.decoder import MaskDecoder, apply_filter
from bsbimamba.network.stft import istft, stft

# Below this root mean square (-100 dB of full scale) a recording counts as silent.
RMS_FLOOR = 1e-5


def loudness(x: Tensor) -> Tensor:
    """Return the root mean square (b, 1) of waveforms (b, s), at least RMS_FLOOR."""
    # The floor is under the root: at silence the root's own gradient is infinite.
    return x.float().square().mean(-1, keepdim=True).clamp_min(RMS_FLOOR**2).sqrt()


def name_of(network: type) -> str:
    """Return the class of a network as checkpoints and models name it, "package.module:Class"."""
    return f"{network.__module__}:{network.__qualname__}"


class BandSplitNet(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="bs-bimamba",
    license="mit",
    pipeline_tag="audio-to-audio",
    tags=["speech-enhancement"],
    model_card_template=Path(__file__).with_name("card.md").read_text(encoding="utf-8"),
):
    """A speech enhancer: waveform at 16 kHz in, waveform out.

    `save_pretrained`, `push_to_hub` and `from_pretrained` are Hugging Face's: config.json has the
    arguments of the class, and of a trained network what `inference.trained` adds to them.

    Args:
        channels: features c of each band.
        layers: (k, b, t, c) to the same, where the networks differ.
        decoder: (k, b, t, c) to the filter (b, f, t, 3).
    """

    _hub_mixin_config: Any  # what `save_pretrained` writes: the arguments, and which class it is

    def __init__(self, channels: int, layers: nn.Module, decoder: MaskDecoder) -> None:
        super().__init__()
        self.split = BandSplit(channels)
        self.layers = layers
        self.decoder = decoder
        self._hub_mixin_config = {**(self._hub_mixin_config or {}), "network": name_of(type(self))}

    def generate_model_card(self, **values: Any) -> ModelCard:
        """Return the card that is written beside the weights, filled in from their config.json."""
        return super().generate_model_card(**{**self._hub_mixin_config, **values})

    @property
    def device(self) -> torch.device:
        """Return where it computes."""
        return next(self.parameters()).device

    def forward(
        self, noisy: Tensor, scale: Tensor | None = None, statistics: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Enhance waveforms (b, s), s >= 1; return also the enhanced spectrum (b, f, t).

        Each item is divided by its loudness first and multiplied by it in the end. Of a piece of a
        recording, give the recording's loudness as `scale` (b, 1), and the `band_statistics` of all
        its frames, divided by that loudness, as `statistics` (b, 31, 2). By default both are those
        of `noisy`.
        """
        scale = loudness(noisy) if scale is None else scale
        spectrum = stft(noisy / scale)
        taps = self.decoder(self.layers(self.split(spectrum, statistics)))
        enhanced = apply_filter(taps, spectrum * scale[..., None])
        return istft(enhanced, noisy.shape[-1]), enhanced

    @torch.no_grad()
    def enhance(
        self, noisy: Tensor, scale: Tensor | None = None, statistics: Tensor | None = None
    ) -> Tensor:
        """Enhance waveforms (b, s), s >= 1, without gradients.

        scale, statistics: as in `forward`.
        """
        if noisy.dim() != 2 or noisy.shape[-1] < 1:
            raise ValueError(
                f"expected waveforms (batch, samples), at least one sample long; "
                f"the shape is {tuple(noisy.shape)}"
            )
        return self(noisy, scale, statistics)[0]
