"""Words and pictures to vectors of unit length: CLIP-shaped models on ONNX Runtime.

A model is a directory (`model.ModelDirectory`):

    manifest.json                        name, dimension, SHA-256 of every file, a self-test
    text/model.onnx                      input_ids, attention_mask → (rows, dimension)
    text/tokenizer.json                  of the `tokenizers` library
    image/model.onnx                     pixel_values → (rows, dimension)
    image/preprocessor_config.json       as the Hugging Face hub's CLIP models have it

The modules `clean`, `decode`, `image`, `model`, `preprocess` and `text` also run inside
ClickHouse, as part of the UDF bundle: they import nothing but onnxruntime, tokenizers, Pillow,
numpy and ftfy.
"""
