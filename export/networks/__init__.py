"""Networks as Keras models: small CNNs, classic architectures, pretrained backbones, dlib's face network."""
