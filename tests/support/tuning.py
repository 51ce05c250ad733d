"""What the search's tests train: networks that learn something within seconds."""

TINY = ["preprocessing.image_size=64", "network.decoder_channels=32", "coarse.batch_size=8", "coarse.epochs=3"]
