"""Networks as Keras models: small CNNs, classic architectures, pretrained backbones; files of weights."""
