"""The band-split network around a sequence model: spectrum, bands, decoder. Free of Mamba."""
