"""Published models that run without this package's training code: ONNX files, and programs of torch."""
